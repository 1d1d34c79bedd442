"""Kept splits: whole as they were written, or built again."""

import errno
import logging
import os
from pathlib import Path

import pytest

from common.data import cache
from common.data.splits import SPLITS, content_digest
from common.errors import UserError
from common.run.files import write_lines


def kept(folder: Path) -> Path:
    with cache.writing(folder):
        for split in SPLITS:
            write_lines(cache.file_of(folder, split), [f"{split} {number}" for number in range(3)])
    return folder


def cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def flipped(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("harm", [cut, flipped, Path.unlink, lambda path: path.write_text("")])
@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl", "hashes.json"])
def test_what_is_damaged_is_told_of_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: object, name: str
) -> None:
    caplog.set_level(logging.WARNING)
    folder = kept(tmp_path / "data-0")
    assert cache.is_whole(folder) and not caplog.text
    harm(folder / name)  # type: ignore[operator]
    assert not cache.is_whole(folder)
    if (folder / "hashes.json").exists():
        assert "damaged (" in caplog.text and "the splits are built again" in caplog.text
    assert cache.is_whole(kept(folder))


def test_a_folder_that_was_not_finished_is_not_whole(tmp_path: Path) -> None:
    folder = kept(tmp_path / "data-0")
    (folder / "hashes.json").unlink()
    assert not cache.is_whole(folder) and not cache.is_whole(tmp_path / "nowhere")


def test_an_error_of_reading_or_writing_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept(tmp_path / "data-0")

    def failing(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(cache, "_digest", failing)
    with pytest.raises(UserError, match="data-0: cannot be read .Input/output error.; see that the disk answers"):
        cache.is_whole(folder)
    with pytest.raises(UserError, match=r"data-0: Input/output error; free space there, or set another data.cache"):
        kept(folder)


def test_a_key_is_of_content_and_not_of_size_and_time(tmp_path: Path) -> None:
    file, folder = tmp_path / "data" / "sub" / "a.txt", tmp_path / "data"
    file.parent.mkdir(parents=True)
    file.write_text("yes")
    os.utime(file, (7, 7))
    first = content_digest(file), content_digest(folder)
    file.write_text("no.")
    os.utime(file, (7, 7))
    second = content_digest(file), content_digest(folder)
    assert first[0] != second[0] and first[1] != second[1]
    file.write_text("yes")
    assert (content_digest(file), content_digest(folder)) == first
    file.rename(folder / "b.txt")
    assert content_digest(folder) != first[1], "names count"


def test_files_of_another_kind_are_kept_alike(tmp_path: Path) -> None:
    with cache.writing(tmp_path, ".bin"):
        for split in SPLITS:
            cache.file_of(tmp_path, split, ".bin").write_bytes(b"123")
    assert cache.is_whole(tmp_path, ".bin") and not cache.is_whole(tmp_path)
    flipped(cache.file_of(tmp_path, "dev", ".bin"))
    assert not cache.is_whole(tmp_path, ".bin")
