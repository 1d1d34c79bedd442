"""The one place that opens packed files: what they hold unpacked is bounded, and damage has one error.

A few kilobytes can unpack to any size, so nothing here reads more than `Bounds` say before it stops.
"""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from common.errors import UserError

MEGABYTE = 1_000_000
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile)
"""What reading a damaged file raises, besides the `OSError`s of the disk."""


@dataclass
class Bounds:
    """How much a file may hold once it is unpacked: `data.bounds`."""

    file_mb: int = 1024
    """All of a packed file, and of any file that is read into memory whole."""
    line_mb: int = 64

    def __post_init__(self) -> None:
        """Refuse bounds that let nothing through.

        Raises:
            UserError: one is below 1.
        """
        for key in ("file_mb", "line_mb"):
            if getattr(self, key) < 1:
                raise UserError(f"data.bounds.{key}={getattr(self, key)}: use 1 or more, in megabytes")


_BOUNDS = ContextVar("bounds", default=Bounds())  # noqa: B039 -- nobody writes to it


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Readers within hold to `bounds`."""
    token = _BOUNDS.set(bounds)
    try:
        yield
    finally:
        _BOUNDS.reset(token)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file with their ends, unpacked where it ends in .gz or .xz.

    Raises:
        UserError: the file or a line of it is beyond the bounds.
        OSError: it cannot be read; of a damaged file one of `DAMAGE`.
    """
    bounds, number = _BOUNDS.get(), 0
    with opened(path) as file:
        while line := file.readline(bounds.line_mb * MEGABYTE + 1):
            number += 1
            if len(line) > bounds.line_mb * MEGABYTE:
                raise UserError(
                    f"{path}:{number}: a line of more than {bounds.line_mb} MB; is this a file of lines? If so, raise "
                    "data.bounds.line_mb"
                )
            yield line


def whole(path: Path) -> bytes:
    """All of a file, unpacked where it ends in .gz or .xz. Raises as `lines_of`."""
    with opened(path, whole=True) as file:
        return file.read()


def members(path: Path) -> dict[str, bytes]:
    """Name -> content of all files in a zip archive (.npz is one), which together are bounded. Raises as `lines_of`."""
    largest = _BOUNDS.get().file_mb
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > largest * MEGABYTE:  # more is never read of a file
            raise UserError(f"{path}: unpacks to more than {largest} MB; if you trust it, raise data.bounds.file_mb")
        return {info.filename: archive.read(info) for info in archive.infolist()}


def opened(path: Path, bounds: Bounds | None = None, *, remedy: str = "", whole: bool = False) -> BinaryIO:
    """A file to read, unpacked where it ends in .gz or .xz; reading beyond the bounds raises UserError.

    Args:
        path: the file.
        bounds: in place of `data.bounds`.
        remedy: what to do about a file beyond them, for the message.
        whole: it will be in memory as a whole, so that the limit holds for a plain file too.
    """
    if path.suffix not in (".gz", ".xz") and not whole:
        return path.open("rb")
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, Path.open)
    file = opener(path, "rb")
    largest = (bounds or _BOUNDS.get()).file_mb
    return cast(BinaryIO, io.BufferedReader(_Bounded(path, file, largest, remedy or "raise data.bounds.file_mb")))


class _Bounded(io.RawIOBase):
    """A file that ends with an error after so many megabytes."""

    def __init__(self, path: Path, file: IO[bytes], megabytes: int, remedy: str) -> None:
        super().__init__()
        self._path, self._file, self._megabytes, self._remedy = path, file, megabytes, remedy
        self._left = megabytes * MEGABYTE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self._file.read(min(len(buffer), self._left + 1))
        if len(found) > self._left:
            raise UserError(f"{self._path}: unpacks to more than {self._megabytes} MB; if you trust it, {self._remedy}")
        self._left -= len(found)
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()
