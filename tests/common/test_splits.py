"""Shares, and splits by content."""

import pytest

from common.errors import UserError
from common.splits import MADE, SPLITS, belongs, cut, digest

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
