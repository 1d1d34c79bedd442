"""Line-by-line reading of plain and packed text, with errors that name file and line."""

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from common.errors import UserError


def read_lines(path: Path, *, remedy: str = "check the path") -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, text)` of every line that is not blank; .gz and .xz are unpacked on the way.

    The file is looked up at once, not at the first line, so a missing file is reported where it was asked for.

    Raises:
        UserError: the file is missing (`remedy` ends the message), unreadable, not UTF-8 or a damaged archive.
    """
    _check_there(path, remedy)
    numbered = enumerate(_lines(path), start=1)
    return ((number, text) for number, line in numbered if (text := line.strip()))


def read_csv(path: Path, *, remedy: str = "check the path") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield `(line number, row)` of a file of comma-separated values whose first line names the columns.

    The number is that of the last line of a row. Files may be packed as in `read_lines`.

    Raises:
        UserError: as `read_lines`; also a row with more or fewer cells than columns, and damaged quoting.
    """
    _check_there(path, remedy)
    return _rows(path)


def read_text(path: Path, *, remedy: str = "check the path") -> str:
    """The whole of a text, unpacked where it is packed, blank lines included.

    Raises:
        UserError: as `read_lines`.
    """
    _check_there(path, remedy)
    return "".join(_lines(path))


def _check_there(path: Path, remedy: str) -> None:
    if not path.is_file():
        kind = "is a folder, a file is needed" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; {remedy}")


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path))
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        kind = {".gz": "gzip", ".xz": "xz"}.get(path.suffix, "")
        raise UserError(f"{path}:{number + 1}: damaged {kind} archive ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                columns = len(reader.fieldnames or ())
                raise UserError(f"{path}:{reader.line_num}: not {columns} cells, as many as columns; correct the line")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1}: malformed CSV ({error}); correct the line") from error


def read_json_lines(path: Path, *, remedy: str = "check the path") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)` of a JSON-lines file, plain or .gz.

    Raises:
        UserError: as `read_lines`; also a line that is not JSON or not an object, and a file without any line.
    """
    return _objects(path, read_lines(path, remedy=remedy))


def _objects(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    empty = True
    for number, text in lines:
        empty = False
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: malformed JSON ({error}); one complete object per line") from error
        if not isinstance(value, dict):
            raise UserError(
                f"{path}:{number}: a JSON {type(value).__name__} where an object is needed; "
                "write one object in braces per line"
            )
        yield number, value
    if empty:
        raise UserError(f"{path}: the file is empty; one JSON object per line is needed")
