"""Files that are whole or not there: written beside their place, synced, then renamed; folders: `common.run.swap`.

A name beside a place is random, for two containers may give their processes the same number, and made exclusively. A
writer holds a lock (`flock`) on what it writes: what is not locked was left by a killed one and goes when its place is
written next. Where there are no locks, what is older than `LEFT_SECONDS` goes.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".tmp-"
"""Part of every temporary name; what a killed process left behind is found by it."""
LEFT_SECONDS = 86400.0
LONGEST = 120
"""Bytes of a file's own name in a temporary one; a file system takes 255 in all."""


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that readers, and a restart after a crash, see the old content or all of the new.

    Raises:
        OSError: the disk is full or the place not writable; `path` is as before and nothing temporary is left.
    """
    with new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


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
    with new_file(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block has ended without an error.

    Raises:
        OSError: as `write_atomic`.
    """
    make_folder(path.parent)
    remove_temporaries(path.parent, path.name)
    temporary, descriptor = held(path, _new_file)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            sync_file(file)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder, so on the same file system, that nobody else uses, on this machine or another."""
    return path.with_name(f"{hidden(path)}{TEMPORARY}{secrets.token_hex(8)}")


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Delete what killed writers left in `folder`, of the file `name` or of any; what a living one holds stays."""
    for path in named(folder, f"{hidden(folder / name)}{TEMPORARY}" if name else ""):
        if TEMPORARY in path.name:
            with suppress(OSError):
                _remove_if_left(path)


def make_folder(folder: Path) -> list[Path]:
    """Make `folder` and its parents if need be, and wait until their names are on the disk; returns those made, the
    deepest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        sync_folder(place.parent)
    return missing


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, if it is one: no link, pipe or device that could stand for something else.

    Raises:
        OSError: there is none, it is something else (ELOOP, EISDIR), or it cannot be opened.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise IsADirectoryError(errno.EISDIR, "no regular file", str(path))
    return file


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


def sync_tree(folder: Path) -> None:
    """Wait until all files and names below `folder`, which others have written, are on the disk."""
    for place in (folder, *folder.rglob("*")):
        sync_folder(place)  # a file is synced the same way


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


def is_at(path: Path, descriptor: int) -> bool:
    """Is what was opened as `descriptor` still what has the name `path`?"""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def hidden(path: Path) -> str:
    """How the names of what belongs to `path` begin, beside it."""
    return f".{os.fsencode(path.name)[:LONGEST].decode(errors='ignore')}"


def named(folder: Path, start: str) -> list[Path]:
    """What in `folder` has a name that begins with `start`, or with a dot; nothing if there is no folder."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if name.startswith(start or ".")]
    except FileNotFoundError:
        return []


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def held(path: Path, make: Any) -> tuple[Path, int]:
    """What `make` makes beside `path`, locked where there are locks; another one if it was taken for left meanwhile."""
    while True:
        temporary = temporary_beside(path)
        descriptor = make(temporary)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(temporary, descriptor):
                return temporary, descriptor
        except BaseException:
            with suppress(OSError):
                _remove(temporary)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_if_left(path: Path) -> None:
    folder = path.is_dir() and not path.is_symlink()
    descriptor = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            if time.time() - os.fstat(descriptor).st_mtime < LEFT_SECONDS:
                return
        _remove(path)
    finally:
        os.close(descriptor)
