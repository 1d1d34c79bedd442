"""What parsers let pass: keys that stand twice, misspelt fields, one word in two spellings, files in another form."""

import gzip
import json
from pathlib import Path

import pytest

from common.data.given import Spellings, Unread, check_names, name_of
from common.data.jsonfile import read_objects
from common.data.textfile import read_csv, read_json_lines, read_lines
from common.errors import UserError

TWICE = '{"a": 1, "b": {"c": 1, "c": 2}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWICE, "x.json:1: the key 'c' stands twice in one object; keep one of them"),
        ('{"a": "\\u0000"}', "x.json:1: a holds a NUL character"),
        ('{"a": ["ok", "\\ud800"]}', "x.json:1: a holds half a character"),
        ("question,answer\nIs it?,yes\n", "x.json:1: this is CSV or text, not JSON; write one object in braces"),
        ("\ufefffacts\tanswer\n", "x.json:1: this is CSV or text"),
    ],
)
def test_what_json_parsers_let_pass_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    for read in (lambda: read_json_lines(path, own=False), lambda: read_objects(path)):
        with pytest.raises(UserError, match=message):
            list(read())
    if text == TWICE:
        assert list(read_json_lines(path)) == [(1, {"a": 1, "b": {"c": 2}})], "our own files are read at full speed"


def test_an_array_over_several_lines_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps([{"a": 1}], indent=1))
    with pytest.raises(UserError, match="x.jsonl:1: this is an array over several lines; write one object in braces"):
        list(read_json_lines(path, own=False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": 2}', "x.json:2: the array does not end; the file is cut short"),
        ('[{"a": 1}]\n[{"a": 2}]', "x.json:1: a ']' with more behind it"),
        ('{"a": 1}\n]', "x.json:2: a ']' with more behind it, or without its beginning"),
        ('{"Data": [{"a": 1},', "x.json:1: the array does not end"),
    ],
)
def test_an_array_that_is_cut_or_not_all_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_objects(path, field="Data"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.csv: the file is empty"),
        (b'{"a": 1}\n', "x.csv:1: this is JSON, comma-separated values are needed"),
        (b"a;b\n1;2\n", "x.csv:1: columns are separated by ';'; save the file with commas"),
        (b"a\tb\n1\t2\n", r"x.csv:1: columns are separated by '\\t'"),
        (b"a,b,a\n1,2,3\n", "x.csv:1: the column 'a' stands twice"),
        ("a,b\n1,2\n".encode("utf-16-le"), "x.csv:1: a NUL character, so no UTF-8 text; save the file as UTF-8"),
        (gzip.compress(b"a,b\n", mtime=0), r"x.csv:1: a packed file \(gzip, .gz\) without its ending"),
    ],
)
def test_a_table_in_another_form_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_csv(tmp_path / "x.csv"))


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    long = "word " * 100_000
    (tmp_path / "x.csv").write_text(f'a,b\n1,"{long}"\n')
    assert list(read_csv(tmp_path / "x.csv")) == [(2, {"a": "1", "b": long})]


def test_a_mark_at_the_beginning_and_other_line_ends_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(read_json_lines(tmp_path / "x.jsonl", own=False)) == [(1, {"a": 1}), (3, {"a": 2})]
    assert list(read_objects(tmp_path / "x.jsonl")) == [(1, {"a": 1}), (3, {"a": 2})]
    assert [line for line, _ in read_lines(tmp_path / "x.jsonl")] == [1, 3]


@pytest.mark.parametrize("name", ["relevent", "Relevant", "relevants", "supports"])
def test_a_field_that_is_most_likely_a_known_one_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"x:1: unknown field '{name}': did you mean 'relevant'"):
        check_names({name: [], "id": 1}, ("id", "relevant"), "x:1", {"supports": "relevant"})


def test_fields_that_nobody_reads_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    unread = Unread("x.jsonl")
    for line in (3, 4):
        unread.tell(
            check_names({"id": 1, "comment": "", "relevant": [], "relevant2": 1}, ("id", "relevant"), "", {}), line
        )
    assert caplog.messages == ["x.jsonl:3: field 'comment' is not read", "x.jsonl:3: field 'relevant2' is not read"]


def test_names_are_texts_or_numbers() -> None:
    assert [name_of(value, "id", "x:1") for value in (0, "a", None, 1.5)] == ["0", "a", None, "1.5"]
    for value in ("", " ", True, [], {}):
        with pytest.raises(UserError, match="x:1: id=.* is neither a text nor a number"):
            name_of(value, "id", "x:1")


def test_the_first_spelling_is_kept_and_the_others_are_named(caplog: pytest.LogCaptureFixture) -> None:
    spellings = Spellings(str.lower)
    said = [spellings.one(word, f"x:{line}") for line, word in enumerate(("Yes", "no", *("yes",) * 7, "YES"), 1)]
    assert said == ["Yes", "no", *("Yes",) * 8]
    spellings.tell("answer")
    assert caplog.messages[0] == (
        "the answer 'yes' (x:3, x:4, x:5, x:6, x:7 and 2 more) is read as 'Yes' (x:1 first): scoring takes them for "
        "one; write it in one way"
    )
    assert "'YES' (x:10)" in caplog.messages[1] and len(caplog.messages) == 2
