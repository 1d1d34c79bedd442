"""What a page is made of, and its text from the templates beside this file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from scripts.tables.grids import Grid


@dataclass(frozen=True)
class Cell:
    """A field of a table."""

    text: str
    small: str = ""
    """Below it, smaller: an interval."""
    raised: str = ""
    """Behind it, raised: the mark of a source."""
    sign: str = ""
    """A verdict's sign, `kind` its class and `tip` its words."""
    signed: bool = False
    """Whether there is room for a sign."""
    kind: str = ""
    tip: str = ""
    link: str = ""
    """Anchor on this page."""
    code: bool = False
    share: float | None = None
    """Length of a bar below the text, 0 to 1."""
    value: float | None = None
    """What it is sorted by; None: its text."""


@dataclass(frozen=True)
class Head:
    """A column's head; columns of one `group` that stand together share a head above."""

    text: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True)
class Line:
    """A row; quiet ones need no reasoning."""

    cells: Sequence[Cell]
    quiet: bool = False


@dataclass(frozen=True)
class DataTable:
    """A table that can be sorted and, where it is long, filtered."""

    head: Sequence[Head]
    lines: Sequence[Line]
    name: str
    """For those who do not see where it stands."""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heads above the heads, with the number of columns that each spans; empty without groups."""
        found: list[tuple[str, int]] = []
        for head in self.head:
            if found and head.group and found[-1][0] == head.group:
                found[-1] = (head.group, found[-1][1] + 1)
            else:
                found.append((head.group, 1))
        return found if any(name for name, _ in found) else []

    @property
    def long(self) -> bool:
        """Worth a filter."""
        return len(self.lines) > 7


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend. Without panels, `empty` says why."""

    name: str
    panels: Sequence[tuple[str, str]]
    """Title and SVG, or an image or a video with its bytes inside."""
    legend: Sequence[tuple[str, str]] = ()
    """SVG of a key and its text."""
    caption: str = ""
    empty: str = ""
    numbers: DataTable | None = None


@dataclass(frozen=True)
class Block:
    """Something with a heading: notes, a table, its long form, figures, and the commands that make them."""

    title: str
    anchor: str
    label: str = ""
    """Before the title: where it stands in the paper."""
    notes: Sequence[str] = ()
    """One paragraph."""
    lines: Sequence[str] = ()
    """A paragraph each."""
    table: DataTable | None = None
    details: DataTable | None = None
    figures: Sequence[Figure] = ()
    commands: Sequence[tuple[str, str]] = ()
    """What a command is for, and the command."""
    missing: str = ""
    quiet: bool = False
    """No run is there yet."""


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in its table of contents."""

    title: str
    anchor: str
    blocks: Sequence[Block]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    facts: Sequence[tuple[str, Sequence[str]]]
    """What stands below the title: name, lines."""
    sections: Sequence[Section]
    command: str


def table_of(grid: Grid, name: str) -> DataTable:
    """A grid of text as a table of the page; columns with a number are sorted by what their fields begin with."""
    numbers = [any(re.match(r"[+-]?\d", line[index]) for line in grid.body) for index in range(len(grid.head))]
    head = [Head(text, number=index >= grid.left and numbers[index]) for index, text in enumerate(grid.head)]
    return DataTable(head, [Line([Cell(text) for text in line]) for line in grid.body], name)


def render(page: Page) -> str:
    """The page as one HTML file that needs nothing else."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(name: str) -> str:
        return (files(__package__) / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(page=page, style=read("style.css"), script=read("page.js"))
