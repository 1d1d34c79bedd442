"""Objects of JSON files in their three forms, with the lines they begin in."""

import gzip
from pathlib import Path

import pytest

from common.data.jsonfile import line_within, read_objects
from common.errors import UserError


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"a": 1}\n\n{"a": 2}\n', [1, 3]),
        ('[\n  {"a": 1},\n  {"a":\n 2}]\n', [2, 3]),
        ('{"Data": [{"a": 1},\n{"a": 2}], "more": {"a": 3}}', [1, 2]),
        ('{"a": 1}\n{"a": 2}', [1, 2]),
    ],
)
def test_every_form_is_read_with_its_lines(tmp_path: Path, text: str, lines: list[int]) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert list(read_objects(path, field="Data")) == [(line, {"a": place}) for place, line in enumerate(lines, 1)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1}\n{"a": }', "x.json:2: malformed JSON"),
        ('[{"a": 1},\n\n"b"]', "x.json:3: a JSON str where an object"),
        ("[]", "x.json: holds no object"),
        (" \n", "x.json: holds no object"),
        ("[" * 100_000, "x.json:1: (malformed JSON|a JSON list)"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=what):
        list(read_objects(path))


def test_a_missing_file_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; look again"):
        read_objects(tmp_path / "none.json", remedy="look again")


def test_the_line_of_an_item_within_an_object_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"rows": [1]}\n{"other": [],\n "rows": [\n  {"a": [1, 2]},\n  {"a": 3},\n\n  7]}')
    assert [line_within(path, 2, "rows", index) for index in range(3)] == [4, 5, 7]
    assert line_within(path, 1, "rows", 0) == 1
    assert line_within(path, 1, "nothing", 5) == 1
