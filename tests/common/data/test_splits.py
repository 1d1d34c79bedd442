"""Shares, and splits by content."""

from pathlib import Path

import pytest

from common.data.splits import MADE, SPLITS, belongs, build_digest, check_disjoint, cut, digest, shares_of
from common.errors import UserError

SHARES = {"train": 0.75, "dev": 0.125, "test": 0.125}


def test_shares_are_met_and_depend_on_seed_and_keys_alone() -> None:
    keys = [f"k{number}" for number in range(80)]
    found = cut(keys, SHARES, 1)
    assert [list(found.values()).count(split) for split in SPLITS] == [60, 10, 10]
    assert found == cut(reversed(keys), SHARES, 1) == cut(keys + keys, SHARES, 1)
    assert found != cut(keys, SHARES, 2)


def test_shares_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(UserError, match="3 books leave none for 'test'"):
        cut(["a", "b", "c"], SHARES, 0, "books")
    for shares in ({}, {"train": 0.5}, {"train": 1.5, "dev": -0.5}):
        with pytest.raises(UserError, match="must be positive and sum to 1"):
            cut(["a"], shares, 0)


def test_every_content_belongs_to_one_split() -> None:
    counts = dict.fromkeys(MADE, 0)
    for number in range(1600):
        (split,) = [split for split in MADE if belongs(f"sentence {number}", split)]
        counts[split] += 1
    for split, count in counts.items():
        assert count / 1600 == pytest.approx(len(MADE[split]) / 16, abs=0.04)
    assert digest("a") != digest("b") and len(digest("a")) == 16


def test_shares_of_splits_without_files_sum_to_one() -> None:
    assert shares_of({"train": 0.6, "dev": 0.2, "test": 0.2}, ["dev"]) == pytest.approx({"train": 0.75, "dev": 0.25})
    with pytest.raises(UserError, match="shares must be positive"):
        cut("abc", shares_of({"train": 0, "dev": 0, "test": 1}, ["dev"]), 0)


def test_splits_that_share_a_key_are_refused() -> None:
    check_disjoint({"train": {"a"}, "dev": {"b"}, "test": {"c"}}, "things")
    with pytest.raises(UserError, match="the train and test splits share 1 things"):
        check_disjoint({"train": {"a"}, "dev": {"b"}, "test": {"a"}}, "things")


def test_what_is_built_hangs_on_settings_files_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, file = tmp_path / "sample_package" / "__init__.py", tmp_path / "data"
    module.parent.mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def key(setting: int, data: str, code: str) -> str:
        file.write_text(data)
        module.write_text(code)
        return build_digest({"x": setting}, {"data": file}, "sample_package")

    given = [(1, "a", ""), (2, "a", ""), (1, "ab", ""), (1, "ab", "changed = True")]
    assert len({key(*each) for each in given}) == len(given)
