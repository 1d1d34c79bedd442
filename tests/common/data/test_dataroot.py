"""Finding real data below a root that may lie anywhere on the way to it."""

from pathlib import Path

import pytest

from common.data.dataroot import ROOT_VARIABLE, check_all, find
from common.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "a.txt.xz").write_bytes(b"")
    (tmp_path / "data" / "set" / "b.txt").write_text("b")
    return tmp_path / "data"


def test_a_file_is_found_from_any_folder_on_the_way_and_packed(root: Path) -> None:
    for start in (root, root / "set"):
        assert find(str(start), "set/a.txt", "no") == root / "set" / "a.txt.xz"
        assert find(str(start), "set/b.txt", "no") == root / "set" / "b.txt"
    assert find(str(root), "set", "no") == root / "set"


def test_a_star_stands_for_any_text_where_one_file_alone_fits(root: Path) -> None:
    assert find(str(root), "set/a*", "no") == root / "set" / "a.txt.xz"
    (root / "set" / "c.txt.xz").write_bytes(b"")
    with pytest.raises(UserError, match="is not below it"):
        find(str(root), "set/*", "no")


def test_the_variable_stands_in_for_the_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="data.root is not set and set/b.txt is needed; .* or do without"):
        find(None, "set/b.txt", "do without")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    assert find(None, "set/b.txt", "no") == root / "set" / "b.txt"


def test_a_path_that_is_there_needs_no_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert find(None, "set/b.txt", "no") == Path("set/b.txt")
    assert find(str(root / "elsewhere"), str(root / "set" / "b.txt"), "no") == root / "set" / "b.txt"


def test_what_is_missing_is_named_with_the_way_out(root: Path) -> None:
    with pytest.raises(UserError, match="set/c.txt is not below it; put it there, or do without"):
        find(str(root), "set/c.txt", "do without")


def test_files_that_are_missing_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").touch()
    check_all(str(tmp_path), ["a.txt", "b.txt", "b.txt"], "generate them")  # one: whoever reads it says more
    with pytest.raises(
        UserError, match=r"data.root=.*: b.txt, c/d.txt are not below it; put them there, or generate them"
    ):
        check_all(str(tmp_path), ["a.txt", "b.txt", "c/d.txt"], "generate them")
    with pytest.raises(UserError, match=r"data.root is not set and b.txt, c.txt are needed; set data.root=<folder>"):
        check_all(None, ["b.txt", "c.txt"], "generate them")
