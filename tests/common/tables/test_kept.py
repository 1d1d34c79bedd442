"""Settings composed before are taken as they were until a file that decides them changes."""

import json
from pathlib import Path

import pytest

from common.tables import kept as module
from common.tables.kept import FILE, Which, digest_of, kept

ONE: Which = ("toy", "train", "cpu", ("method=a", "inner.steps=2"))
TWO: Which = ("toy", "train", "cpu", ("method=b",))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose files decide what is composed."""
    folder = tmp_path / "deciding_package"
    folder.mkdir()
    (folder / "config.py").write_text("STEPS = 1\n")
    (folder / "config.yaml").write_text("steps: ${oc.env:KEPT_STEPS,1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def seen(root: Path) -> dict[Which, str]:
    """What a later process would know of the runs below `root`."""
    composed: dict[Which, str] = {}
    with kept(root, ["deciding_package"], composed):
        return dict(composed)


def keep(root: Path, *new: tuple[Which, str]) -> None:
    composed: dict[Which, str] = {}
    with kept(root, ["deciding_package"], composed):
        composed.update(new)


def test_what_one_process_composed_another_one_need_not(tmp_path: Path, package: Path) -> None:
    keep(tmp_path, (ONE, "1"))
    keep(tmp_path, (TWO, "2"))
    assert seen(tmp_path) == {ONE: "1", TWO: "2"}


@pytest.mark.parametrize("name", ["config.py", "config.yaml"])
def test_a_changed_file_makes_all_of_it_void(tmp_path: Path, package: Path, name: str) -> None:
    keep(tmp_path, (ONE, "1"))
    (package / name).write_text("STEPS: 2\n")
    assert seen(tmp_path) == {}


def test_a_file_more_makes_all_of_it_void(tmp_path: Path, package: Path) -> None:
    keep(tmp_path, (ONE, "1"))
    (package / "more.yaml").write_text("steps: 3\n")
    assert seen(tmp_path) == {}


def test_a_variable_that_a_setting_reads_decides_too(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, (ONE, "1"))
    monkeypatch.setenv("KEPT_STEPS", "7")
    assert seen(tmp_path) == {}
    monkeypatch.delenv("KEPT_STEPS")
    assert seen(tmp_path) == {ONE: "1"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"deciding": 3}', "null"])
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, package: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert seen(tmp_path) == {}
    keep(tmp_path, (ONE, "1"))
    assert seen(tmp_path) == {ONE: "1"}


def test_entries_of_another_form_count_as_none(tmp_path: Path, package: Path) -> None:
    keep(tmp_path, (ONE, "1"))
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"settings": [["toy", "train"]]}))
    assert seen(tmp_path) == {}


def test_a_folder_that_cannot_be_written_keeps_nothing_and_ends_nothing(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "write_atomic", refuse)
    keep(tmp_path, (ONE, "1"))
    assert not (tmp_path / FILE).exists()


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path, package: Path) -> None:
    assert seen(tmp_path) == {}
    assert not (tmp_path / FILE).exists()


def test_the_digest_tells_values_and_their_types_apart() -> None:
    keys = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"b": 1}, {"a": None}, {"a": [1]}]
    assert len({digest_of(each) for each in keys}) == len(keys)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
