import gzip
import lzma
from pathlib import Path

import pytest

from common.data.textfile import read_csv, read_json_lines, read_lines
from common.errors import UserError


def test_plain_and_packed_files_give_the_same_numbered_lines(tmp_path: Path) -> None:
    text = "\ufefffirst\n\n  second  \r\nthird".encode()
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(text))
    for name in ("a.txt", "a.txt.gz", "a.txt.xz"):
        assert list(read_lines(tmp_path / name)) == [(1, "first"), (3, "second"), (4, "third")]


def test_a_missing_file_is_reported_before_the_first_line_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt: no such file; set data\.root"):
        read_lines(tmp_path / "none.txt", remedy="set data.root")
    with pytest.raises(UserError, match="is a folder, a file is needed"):
        read_lines(tmp_path)


def test_damaged_bytes_name_file_and_line(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"good\nbad \xe9t\xe9\n")
    with pytest.raises(UserError, match=r"latin\.txt:2: not UTF-8 text .*; save the file as UTF-8"):
        list(read_lines(latin))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"line\n" * 100_000)[:-30])
    with pytest.raises(UserError, match=r"cut\.gz:\d+: damaged gzip archive .*; copy or download it again"):
        list(read_lines(cut))
    fake = tmp_path / "fake.gz"
    fake.write_text("not packed")
    with pytest.raises(UserError, match=r"fake\.gz:1: damaged gzip archive"):
        list(read_lines(fake))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 1', r"x\.jsonl:2: malformed JSON \(.*\); one complete object per line"),
        ("[1, 2]", r"x\.jsonl:1: a JSON list where an object is needed"),
        ("\n \n", r"x\.jsonl: the file is empty; one JSON object per line is needed"),
    ],
)
def test_json_lines_refuse_anything_but_objects(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_json_lines(path))


def test_json_lines_keep_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_json_lines(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_rows_come_with_the_number_of_their_last_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfname,text\r\nAnn,"one\r\ntwo, three"\r\n\r\nBob,"say ""so"""\r\n')
    rows = list(read_csv(tmp_path / "a.csv"))
    assert rows == [(3, {"name": "Ann", "text": "one\r\ntwo, three"}), (5, {"name": "Bob", "text": 'say "so"'})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", r"bad\.csv:3: not 2 cells, as many as columns"),
        (b"a,b\n1\n", r"bad\.csv:2: not 2 cells"),
        (b'a,b\n1,"2"3\n', r"bad\.csv:2: malformed CSV"),
        (b"a,b\n1,\xe9\n", r"bad\.csv:2: not UTF-8 text"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_csv(tmp_path / "bad.csv"))


def test_a_damaged_xz_archive_names_its_kind(tmp_path: Path) -> None:
    (tmp_path / "cut.xz").write_bytes(lzma.compress(b"a\n" * 5000)[:-20])
    with pytest.raises(UserError, match=r"cut\.xz:\d+: damaged xz archive"):
        list(read_lines(tmp_path / "cut.xz"))
