"""Line-by-line reading of plain and packed text, with errors that name file and line."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.data.given import Refused, checked
from common.data.packed import DAMAGE, lines_of, whole
from common.errors import UserError

CELL = 2**27
"""Characters of a cell of CSV, at most; more is a quotation mark that is never closed."""
PACKED = {b"\x1f\x8b": "gzip, .gz", b"\xfd7zXZ": "xz, .xz", b"PK\x03\x04": "zip, none that is read"}
"""How a packed file begins -> its kind, and the ending by which it is known."""


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
        return _text(path, 1, whole(path))


def _check_there(path: Path, remedy: str) -> None:
    if not path.is_file():
        kind = "is a folder, a file is needed" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; {remedy}")


def _lines(path: Path) -> Iterator[str]:
    number = 0
    with _readable(path, lambda: number + 1):
        for number, raw in enumerate(lines_of(path), start=1):
            yield _text(path, number, raw)


def _text(path: Path, number: int, raw: bytes) -> str:
    """What bytes that begin in line `number` say.

    Raises:
        UserError: they are no UTF-8 text.
    """
    if number == 1 and (kind := next((kind for head, kind in PACKED.items() if raw.startswith(head)), None)):
        raise UserError(f"{path}:1: a packed file ({kind}) without its ending; unpack it, or name it so")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    if (place := raw.find(b"\0")) >= 0:
        line = number + raw.count(b"\n", 0, place)
        raise UserError(f"{path}:{line}: a NUL character, so no UTF-8 text; save the file as UTF-8")
    return text


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


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(CELL)
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        _check_columns(path, list(reader.fieldnames or ()))
        for row in reader:
            if None in row or None in row.values():
                columns = len(reader.fieldnames or ())
                raise UserError(f"{path}:{reader.line_num}: not {columns} cells, as many as columns; correct the line")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1}: malformed CSV ({error}); correct the line") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise UserError(f"{path}: the file is empty; a line with the names of the columns is needed")
    if columns[0].lstrip().startswith(("{", "[")):
        raise UserError(f"{path}:1: this is JSON, comma-separated values are needed; give another file or data.format")
    if len(columns) == 1 and (sign := next((sign for sign in ";\t|" if sign in columns[0]), None)):
        raise UserError(f"{path}:1: columns are separated by {sign!r}; save the file with commas")
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(f"{path}:1: the column {twice[0]!r} stands twice; keep one of them")


def read_json_lines(
    path: Path, *, remedy: str = "check the path", own: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)` of a JSON-lines file, plain or .gz; one that is not our `own` is read with care.

    Raises:
        UserError: as `read_lines`; also a line that is not JSON or not an object, and a file without any line. If it is
            not our own, a key that stands twice in an object.
    """
    return _objects(path, read_lines(path, remedy=remedy), None if own else checked)


def other_form(path: Path, text: str) -> str:
    """What a first line that is not JSON seems to be, with the remedy; "" if nothing else."""
    if "{" not in text and ({".csv", ".tsv"} & set(path.suffixes) or any(sign in text for sign in ",;\t")):
        return "this is CSV or text, not JSON; write one object in braces per line, or give another file or data.format"
    if text.startswith("["):
        return "this is an array over several lines; write one object in braces per line, without the array"
    return ""


def _objects(
    path: Path, lines: Iterator[tuple[int, str]], hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    empty = True
    for number, text in lines:
        first, empty = empty, False
        try:
            value = json.loads(text, object_pairs_hook=hook)
        except Refused as error:
            raise UserError(f"{path}:{number}: {error}") from error
        except (ValueError, RecursionError) as error:
            if first and (form := other_form(path, text)):
                raise UserError(f"{path}:{number}: {form}") from error
            raise UserError(f"{path}:{number}: malformed JSON ({error}); one complete object per line") from error
        if not isinstance(value, dict):
            raise UserError(
                f"{path}:{number}: a JSON {type(value).__name__} where an object is needed; "
                "write one object in braces per line"
            )
        yield number, value
    if empty:
        raise UserError(f"{path}: the file is empty; one JSON object per line is needed")
