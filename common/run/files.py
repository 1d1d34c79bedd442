"""Files that are whole or not there: written beside their place, synced, then renamed."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".tmp-"
"""Part of every temporary name; what a killed process left behind is found by it."""


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that readers, and a restart after a crash, see the old content or all of the new.

    Raises:
        OSError: the disk is full or the place not writable; `path` is as before and nothing temporary is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        write_synced(temporary, data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically; one record at a time is in memory.

    Raises:
        OSError: as `write_atomic`.
    """
    write_lines(path, (json.dumps(record, ensure_ascii=False) for record in records))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, which come without their ends, atomically; one at a time is in memory.

    Raises:
        OSError: as `write_atomic`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{line}\n")
            sync_file(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder, so on the same file system, that no other process uses."""
    return path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}")


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk; without it a rename may be lost in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left in `folder`; only for folders that one process writes at a time."""
    for path in folder.glob(f".*{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Delete `folder` and whichever of its parents become empty by that; nothing that holds anything."""
    for place in (folder, *folder.parents):
        try:
            place.rmdir()
        except OSError:
            return


def sync_file(file: IO[Any]) -> None:
    """Wait until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())
