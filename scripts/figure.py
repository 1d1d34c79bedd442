"""Accuracies of published tables as one SVG: with their intervals and, hollow, what was published.

    python -m scripts.figure paper=perk table=ranks columns='QA1; QA2' rows='FT-ICR; PERK, rank 16' output=ranks.svg
    python -m scripts.figure paper=perk table=support,controls ...     each cell from the first table that has it

A panel for each column, a line for each row, in the order given. The command stands in the picture's description.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic
from common.tables.join import Filled
from scripts.tables.published_tables import joined_tables
from scripts.words import mistakes_told, values_of

KEYS = ("root", "paper", "scale", "table", "columns", "rows", "title", "output")
NEEDED = ("paper", "table", "columns", "rows", "output")
LINE, HEAD, FOOT, PANEL, GAP = 24, 50, 38, 180, 24
LETTER = 7.2
"""About the width of a letter of a row's name."""
VALUE = 40
"""Room for the number beside a panel."""
STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1d2126}"
    ".soft{fill:#5d6670;font-size:11px}.title{font-weight:600}"
    ".grid{stroke:#dfe3e7}.bar{stroke:#0b5fa5;stroke-width:2}.dot{fill:#0b5fa5}"
    ".known{fill:#fff;stroke:#c8501a;stroke-width:1.5}"
)
CAPTION = "● mean over seeds with its 95 % interval   ◇ published"


def parse(words: Sequence[str]) -> dict[str, str]:
    """key=value words.

    Raises:
        UserError: an unknown key, or one that is missing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.figure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = (
        "columns= and rows= by their names with ; between them; root= (runs), scale= (cpu) and title= may be left out"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=text)
    given = {"root": "runs", "scale": "cpu", "title": "", **values_of(parser.parse_args(words).words, KEYS)}
    if missing := [key for key in NEEDED if not given.get(key)]:
        raise UserError(f"{missing[0]}= is missing; --help shows an example")
    return given


def cells_of(given: Mapping[str, str]) -> dict[tuple[str, str], Filled]:
    """(row, column) -> its cell, for every row and column that is asked for, a column at a time.

    Raises:
        UserError: no such table, or a cell that no table has or no run fills.
    """
    found: dict[tuple[str, str], Filled] = {}
    for name in reversed(given["table"].split(",")):
        for joined in joined_tables(Path(given["root"]), [given["paper"]], name, given["scale"]):
            found |= {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}
    wanted = [(row, column) for column in names(given["columns"]) for row in names(given["rows"])]
    for row, column in wanted:
        cell = found.get((row, column))
        if cell is None or cell.value is None:
            what = "has no such cell" if cell is None else f"has no run of it below root={given['root']}"
            raise UserError(f"row {row!r}, column {column!r}: table={given['table']} {what}")
    return {place: found[place] for place in wanted}


def names(text: str) -> list[str]:
    """The names in a text that has ; between them."""
    return [name.strip() for name in text.split(";") if name.strip()]


def draw(cells: Mapping[tuple[str, str], Filled], title: str, command: str) -> str:
    """The SVG; all values are per cent."""
    rows, columns = list(dict.fromkeys(row for row, _ in cells)), list(dict.fromkeys(column for _, column in cells))
    left = 12 + LETTER * max(map(len, rows))
    width = left + len(columns) * (PANEL + VALUE + GAP)
    height = HEAD + LINE * len(rows) + FOOT
    floor = HEAD + LINE * len(rows)
    parts = [f'<text class="title" x="12" y="18">{escape(title)}</text>']
    for place, row in enumerate(rows):
        parts.append(f'<text x="{left:.1f}" y="{_middle(place) + 4}" text-anchor="end">{escape(row)}</text>')
    for index, column in enumerate(columns):
        start = left + GAP + index * (PANEL + VALUE + GAP)
        parts.append(f'<text class="title" x="{start:.1f}" y="{HEAD - 10}">{escape(column)}</text>')
        for tick in (0, 25, 50, 75, 100):
            at = start + tick / 100 * PANEL
            parts.append(f'<path class="grid" d="M{at:.1f} {HEAD}V{floor}"/>')
            parts.append(f'<text class="soft" x="{at:.1f}" y="{floor + 13}" text-anchor="middle">{tick}</text>')
        for place, row in enumerate(rows):
            parts.append(_mark(cells[row, column], start, _middle(place)))
    parts.append(f'<text class="soft" x="12" y="{height - 8}">{CAPTION}, in %</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(command)}</desc><style>{STYLE}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _middle(place: int) -> int:
    return HEAD + LINE * place + LINE // 2


def _mark(cell: Filled, start: float, y: int) -> str:
    assert cell.value is not None and cell.low is not None and cell.high is not None
    low, at, high = (start + value / 100 * PANEL for value in (cell.low, cell.value, cell.high))
    known = cell.cell.published
    hollow = ""
    if known is not None and known.value is not None:
        hollow = f'<path class="known" d="M{start + known.value / 100 * PANEL:.1f} {y - 5}l5 5l-5 5l-5 -5z"/>'
    number = f'<text class="soft" x="{start + PANEL + 10:.1f}" y="{y + 4}">{cell.value:.1f}</text>'
    dot = f'<circle class="dot" cx="{at:.1f}" cy="{y}" r="4"/>'
    return f'<path class="bar" d="M{low:.1f} {y}H{high:.1f}"/>{hollow}{dot}{number}'


def write(words: Sequence[str]) -> Path:
    """Write the figure and return its path.

    Raises:
        UserError: a mistake in the words, a cell that is not there, or a place that cannot be written to.
    """
    given = parse(words)
    shown = [word for word in words if not word.startswith("root=")]  # where the runs lay is no part of the picture
    text = draw(cells_of(given), given["title"], shlex.join(["python", "-m", "scripts.figure", *shown]))
    path = Path(given["output"])
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UserError(f"output={path}: cannot be written ({error.strerror or error}); name another file") from error
    sys.stdout.write(f"{path}: {len(text.encode()) / 1e3:.0f} kB\n")
    return path


def main() -> None:
    """Draw, or say what is wrong."""
    with mistakes_told():
        write(sys.argv[1:])


if __name__ == "__main__":
    main()
