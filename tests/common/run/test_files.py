"""Atomic writes: the old content or the new, never half of it, and nothing left lying about."""

import errno
import os
import resource
from pathlib import Path

import pytest

from common.run import files
from common.run.files import new_file, remove_temporaries, temporary_beside, write_atomic, write_json_lines


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_bytes_and_json_lines_arrive_whole_and_replace_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    write_atomic(target, "é\n")
    assert target.read_bytes() == "é\n".encode()
    write_atomic(target, b"\x00")
    assert target.read_bytes() == b"\x00"
    write_json_lines(target, [{"a": "é"}, {"b": [1, None]}])
    assert target.read_text() == '{"a": "é"}\n{"b": [1, null]}\n'
    assert names(target.parent) == ["file"]


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    target = tmp_path / "file"
    write_atomic(target, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, at, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_file_beyond_the_limit_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(target, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    temporary_beside(tmp_path / "file").write_text("half")
    folder = temporary_beside(tmp_path / "folder")
    folder.mkdir()
    (folder / "half").write_text("")
    (tmp_path / ".hidden").write_text("kept")
    remove_temporaries(tmp_path)
    assert names(tmp_path) == [".hidden"]
    remove_temporaries(tmp_path / "not there")


def test_names_of_two_processes_with_one_number_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert len({temporary_beside(tmp_path / "file") for _ in range(100)}) == 100
    assert len(temporary_beside(tmp_path / ("語" * 85)).name.encode()) < 255, "a name that is as long as can be"


def test_what_a_living_writer_holds_is_left_to_it(tmp_path: Path) -> None:
    with new_file(tmp_path / "file") as file:
        file.write(b"slow")
        remove_temporaries(tmp_path)
        write_atomic(tmp_path / "file", "quick")
        assert (tmp_path / "file").read_text() == "quick"
    assert (tmp_path / "file").read_text() == "slow"
    assert names(tmp_path) == ["file"]


def test_the_next_writer_clears_what_a_killed_one_left_of_the_same_file(tmp_path: Path) -> None:
    for name in ("file", "other"):
        temporary_beside(tmp_path / name).write_text("half")
    write_atomic(tmp_path / "file", "whole")
    first, second = names(tmp_path)
    assert first.startswith(".other.tmp-") and second == "file"


def test_where_there_are_no_locks_only_old_leftovers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    old, young = temporary_beside(tmp_path / "file"), temporary_beside(tmp_path / "file")
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (0, 0))
    write_atomic(tmp_path / "file", "whole")
    assert names(tmp_path) == sorted([young.name, "file"])


def test_a_name_is_taken_again_if_somebody_took_it_for_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock."""
    real, taken = files.is_at, []

    def late(path: Path, descriptor: int) -> bool:
        if not taken:
            taken.append(path)
            path.unlink()
        return real(path, descriptor)

    monkeypatch.setattr(files, "is_at", late)
    write_atomic(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole" and names(tmp_path) == ["file"]


def test_the_parents_of_new_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    write_atomic(tmp_path / "a" / "b" / "file", "whole")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_git_ignores_what_killed_writers_leave() -> None:
    ignored = (Path(__file__).parents[3] / ".gitignore").read_text().splitlines()
    assert f".*{files.TEMPORARY}*" in ignored and ".*.aside-*" in ignored
