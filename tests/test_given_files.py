"""Every reader of users' files refuses what a parser lets pass, and says in which line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from perk import jsonl
from perk.apis.documents import is_placed, read_placed, read_wanted
from perk.documents.items import read_hotpotqa, read_pool, read_triviaqa
from perk.students.records import read_databases
from reckoning.choices import read_choices
from reckoning.folio import read_folio
from reckoning.pararule import read_pararule
from reckoning.problems import read_jsonl
from reckoning.prontoqa import read_prontoqa
from reckoning.proofwriter.recipe import read_records

READERS: dict[str, Callable[[Path], Any]] = {
    "own": read_jsonl, "choices": read_choices, "folio": read_folio, "pararule": read_pararule,
    "prontoqa": read_prontoqa, "proofwriter": lambda path: list(read_records(path)),
    "perk": lambda path: list(jsonl.read_lines(path)), "hotpotqa": lambda path: list(read_hotpotqa(path)),
    "triviaqa": lambda path: list(read_triviaqa(path, None, 3)), "pool": lambda path: list(read_pool(path)),
    "students": lambda path: list(read_databases(path)), "apibench": lambda path: list(read_wanted(path)),
    "placed": lambda path: list(read_placed(path)), "first of apis": is_placed,
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'\n{"id": "a", "id": "b"}', "x.json:2: the key 'id' stands twice"),
        (b'{"id": "a\\u0000"}', "x.json:1: id holds a NUL character"),
        (b"facts,question\nAnne is red,Is she?\n", "x.json:1: this is CSV or text, not JSON"),
        (b"", "x.json: "),
        ('{"id": "é"}'.encode("latin-1"), "x.json:1: not UTF-8 text"),
        ('{"id": "e"}'.encode("utf-16-le"), "x.json:1: a NUL character, so no UTF-8 text"),
    ],
)
def test_a_file_that_no_reader_should_take_is_named(tmp_path: Path, reader: str, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        READERS[reader](path)
