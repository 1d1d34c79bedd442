"""Atomic writes: the old content or the new, never half of it, and nothing left lying about."""

import errno
import os
import resource
from pathlib import Path

import pytest

from common.run.files import remove_temporaries, temporary_beside, write_atomic, write_json_lines


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
