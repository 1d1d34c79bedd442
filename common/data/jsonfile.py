"""The objects of a JSON file, one by one, with the line that each begins in: one array, or one after the other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.given import Refused, checked
from common.data.textfile import other_form, read_text
from common.errors import UserError

_DECODER = json.JSONDecoder(object_pairs_hook=checked)
_BETWEEN = re.compile(r"[\s,]*")


def read_objects(
    path: Path, *, field: str = "", remedy: str = "check the path"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)` of a file that is an array of objects, or has one object after the other.

    With `field` the file may also be one object whose first entry, of that name, is the array.

    Raises:
        UserError: as `common.data.textfile.read_lines`; also malformed JSON, a key that stands twice in an object, an
            item that is no object, an array that does not end or is not all, or nothing at all.
    """
    text = read_text(path, remedy=remedy)
    start = _skip(text, 0)
    found = None
    if field and (found := re.compile(rf'\{{\s*"{field}"\s*:\s*(?=\[)').match(text, start)):
        start = found.end()
    array = text[start : start + 1] == "["
    return _objects(path, text, start + array, ("one of several" if found else "all") if array else "")


def line_within(path: Path, line: int, field: str, index: int) -> int:
    """Line of item `index` in the array `field` of the object that begins in `line`; for error messages."""
    text = read_text(path)
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    found = re.compile(rf'"{field}"\s*:\s*\[').search(text, start)
    if found is None:
        return line
    place = _skip(text, found.end())
    for _ in range(index):
        place = _skip(text, _DECODER.raw_decode(text, place)[1])
    return text.count("\n", 0, place) + 1


def _skip(text: str, start: int) -> int:
    found = _BETWEEN.match(text, start)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _objects(path: Path, text: str, start: int, array: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """`array` says whether the objects are in one, and whether that is all of the file."""
    line, counted, empty = 1, 0, True
    while (start := _skip(text, start)) < len(text) and text[start] != "]":
        line, counted = line + text.count("\n", counted, start), start
        try:
            value, end = _DECODER.raw_decode(text, start)
        except Refused as error:
            raise UserError(f"{path}:{line}: {error}") from error
        except json.JSONDecodeError as error:
            if empty and (form := other_form(path, text[start:].partition("\n")[0])):
                raise UserError(f"{path}:{line}: {form}") from error
            raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg}); correct the line") from error
        except RecursionError as error:
            raise UserError(f"{path}:{line}: malformed JSON (nested too deeply); correct the line") from error
        if not isinstance(value, dict):
            raise UserError(f"{path}:{line}: a JSON {type(value).__name__} where an object in braces is needed")
        yield line, value
        start, empty = end, False
    if empty:
        raise UserError(f"{path}: holds no object; objects in one array, or one after the other, are needed")
    line += text.count("\n", counted, start)
    if array and start == len(text):
        raise UserError(f"{path}:{line}: the array does not end; the file is cut short, copy or download it again")
    if start < len(text) and array != "one of several" and (not array or text[start + 1 :].strip()):
        raise UserError(f"{path}:{line}: a ']' with more behind it, or without its beginning; use one array or none")
