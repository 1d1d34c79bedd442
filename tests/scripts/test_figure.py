"""Cells of tables as a picture: which are taken, where their marks stand, and what is said of a mistake."""

import re
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any
from xml.etree import ElementTree

import pytest

from common.errors import UserError
from scripts import figure

WORDS = ("paper=perk", "table=first,second", "columns=QA1; QA2", "rows=ours; theirs, longer")


def cell(row: str, column: str, value: float | None, published: float | None = None) -> Any:
    known = None if published is None else Made(value=published)
    ends = (None, None) if value is None else (value - 10.0, value + 5.0)
    return Made(cell=Made(row=row, column=column, published=known), value=value, low=ends[0], high=ends[1])


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two tables that share a cell, and one cell that no run fills."""
    made = {
        "first": [cell("ours", "QA1", 50.0, 100.0), cell("ours", "QA2", 25.0), cell("empty", "QA1", None)],
        "second": [cell("theirs, longer", "QA1", 80.0), cell("theirs, longer", "QA2", 10.0), cell("ours", "QA1", 99.0)],
    }
    monkeypatch.setattr(figure, "joined_tables", lambda root, papers, name, scale: [Made(cells=made[name])])
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()


def test_every_cell_stands_at_its_place_and_the_first_table_that_has_it_counts() -> None:
    path = figure.write([*WORDS, "title=A < B", "output=a.svg", "root=elsewhere"])
    text = path.read_text()
    drawn = ElementTree.fromstring(text)
    assert [each.text for each in drawn.iter() if each.tag.endswith("desc")] == [
        "python -m scripts.figure paper=perk table=first,second 'columns=QA1; QA2' 'rows=ours; theirs, longer' "
        "'title=A < B' output=a.svg"
    ], "where the runs lay is not told"
    numbers = re.findall(r">([\d.]+)</text>", text)
    assert [each for each in numbers if "." in each] == ["50.0", "80.0", "25.0", "10.0"]
    first, second = [float(x) for x in re.findall(r'class="title" x="([\d.]+)" y="40"', text)]
    dots = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="(\d+)"', text)]
    across = figure.PANEL / 100
    assert [x for x, _ in dots] == pytest.approx(
        [first + 50 * across, first + 80 * across, second + 25 * across, second + 10 * across], abs=0.06
    )
    assert dots[0][1] == dots[2][1] and dots[1][1] == dots[0][1] + figure.LINE
    (left, right), *_ = re.findall(r'class="bar" d="M([\d.]+) \d+H([\d.]+)"', text)
    assert [float(left), float(right)] == pytest.approx([first + 40 * across, first + 55 * across], abs=0.06)
    (known,) = re.findall(r'class="known" d="M([\d.]+) ', text)
    assert float(known) == pytest.approx(first + 100 * across, abs=0.06)


def test_the_same_runs_give_the_same_bytes() -> None:
    made = [figure.write([*WORDS, "output=a.svg"]).read_bytes() for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    "words, said",
    [
        (WORDS, "output= is missing; --help shows an example"),
        (
            (*WORDS[:2], "columns=QA1", "rows=nobody", "output=a.svg"),
            "row 'nobody', column 'QA1': table=first,second has",
        ),
        ((*WORDS[:2], "columns=QA1", "rows=empty", "output=a.svg"), "has no run of it below root=runs"),
        ((*WORDS, "output=taken/a.svg"), "output=taken/a.svg: cannot be written"),
        ((*WORDS, "colour=red"), "colour=red: write root=<...>"),
    ],
)
def test_a_mistake_is_named(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        figure.write(words)
