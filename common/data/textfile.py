"""Line-by-line reading of plain and packed text, with errors that name file and line."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.data.packed import DAMAGE, lines_of, whole
from common.errors import UserError


def read_lines(path: Path, *, remedy: str = "check the path") -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, text)` of every line that is not blank; .gz and .xz are unpacked on the way.

    The file is looked up at once, not at the first line, so a missing file is reported where it was asked for.

    Raises:
        UserError: the file is missing (`remedy` ends the message), unreadable, not UTF-8, a damaged archive or beyond
            `data.bounds`.
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
    with _readable(path, lambda: 1):
        raw = whole(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, raw.count(b"\n", 0, error.start) + 1, error) from error


def _check_there(path: Path, remedy: str) -> None:
    if not path.is_file():
        kind = "is a folder, a file is needed" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; {remedy}")


def _lines(path: Path) -> Iterator[str]:
    number = 0
    with _readable(path, lambda: number + 1):
        for number, raw in enumerate(lines_of(path), start=1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, error) from error


@contextmanager
def _readable(path: Path, line: Callable[[], int]) -> Iterator[None]:
    """Put into words what goes wrong in reading `path` at the line that `line()` tells."""
    try:
        yield
    except DAMAGE as error:
        kind = {".gz": "gzip", ".xz": "xz"}.get(path.suffix, "")
        raise UserError(f"{path}:{line()}: damaged {kind} archive ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8")


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
