"""Errors of the disk where they are asked for: the k-th call below a folder fails, whatever call it is."""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CODES = (
    errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EACCES, errno.EINTR, errno.ENOLCK, errno.EMFILE, errno.ENOMEM,
    errno.EROFS,
)  # fmt: skip
CALLS = ("open", "stat", "replace", "rename", "link", "mkdir", "listdir", "unlink")
"""Of `os`, with a path as first argument."""


class Disk:
    """Counts the calls below `root`, by name in `calls`, and lets number `at` (from 0) fail with `code`."""

    def __init__(self, root: Path, at: int | None = None, code: int = errno.EIO) -> None:
        self.root, self.at, self.code = os.fspath(root), at, code
        self.calls: list[str] = []
        self.descriptors: dict[int, None] = {}

    def below(self, path: Any) -> bool:
        if isinstance(path, int):
            return path in self.descriptors
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.root)

    def call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            raise OSError(self.code, os.strerror(self.code))


class File:
    """An open file whose reads and writes are calls of the disk."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self._disk, self._file = disk, file

    def __getattr__(self, name: str) -> Any:
        if name in ("read", "readinto", "readline", "write", "flush"):
            self._disk.call(name)
        return getattr(self._file, name)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        self._disk.call("readline")
        return iter(self._file)


@contextmanager
def faulty(disk: Disk) -> Iterator[None]:
    """Within, all that this process does below the disk's root goes through `disk`."""
    real = {name: getattr(os, name) for name in (*CALLS, "fsync", "close")}
    real_open, locks = io.open, {name: getattr(fcntl, name) for name in ("flock", "lockf")}

    def counted(name: str) -> Callable[..., Any]:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            if named.get("dir_fd") is None and disk.below(path):
                disk.call(name)
                found = real[name](path, *given, **named)
                if name == "open":
                    disk.descriptors[found] = None
                return found
            return real[name](path, *given, **named)

        return call

    def opened(path: Any, *given: Any, **named: Any) -> Any:
        if not disk.below(path):
            return real_open(path, *given, **named)
        disk.call("open")
        file = real_open(path, *given, **named)
        disk.descriptors[file.fileno()] = None
        return File(disk, file)

    def synced(descriptor: int) -> None:
        disk.call("fsync")
        real["fsync"](descriptor)

    def closed(descriptor: int) -> None:
        disk.descriptors.pop(descriptor, None)
        real["close"](descriptor)

    def locked(name: str) -> Callable[..., Any]:
        def call(file: Any, *given: Any) -> Any:
            disk.call(name)
            return locks[name](file if isinstance(file, int) else file.fileno(), *given)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(name))
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "close", closed)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        for name in locks:
            patch.setattr(fcntl, name, locked(name))
        yield
