"""A table as text: terminal, Markdown, LaTeX, CSV."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

FORMATS = ("term", "md", "latex", "csv")


@dataclass(frozen=True)
class Grid:
    """Head and body of equal width; the first `left` columns are words, the others numbers."""

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    left: int = 1
    ends: Sequence[int] = ()
    """Indices of rows that a line is drawn below."""
    notes: Sequence[str] = field(default=())


def render(grid: Grid, form: str) -> str:
    """The grid in one of `FORMATS`, ending in a newline."""
    return {"term": _term, "md": _markdown, "latex": _latex, "csv": _csv}[form](grid)


def _term(grid: Grid) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=grid.title, title_justify="left")
    for index, name in enumerate(grid.head):
        table.add_column(name, justify="left" if index < grid.left else "right")
    for index, line in enumerate(grid.body):
        table.add_row(*line, end_section=index in grid.ends)
    text = io.StringIO()
    width = None if sys.stdout.isatty() else max(160, len(grid.title))  # a log file has no width
    Console(file=text, markup=False, highlight=False, width=width).print(table)
    return "\n".join([text.getvalue().rstrip("\n"), *grid.notes]) + "\n"


def _markdown(grid: Grid) -> str:
    rule = ["---"] * grid.left + ["---:"] * (len(grid.head) - grid.left)
    lines = [_row(grid.head), _row(rule), *map(_row, grid.body)]
    notes = [word for note in grid.notes for word in ("", note)]
    return "\n".join([f"**{grid.title}**", "", *lines, *notes]) + "\n"


def _row(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def _latex(grid: Grid) -> str:
    """A booktabs table with a caption."""
    lines = [r"\begin{table}", rf"\caption{{{_escaped(grid.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{'l' * grid.left}{'r' * (len(grid.head) - grid.left)}}}", r"\toprule"]
    lines += [_cells(grid.head), r"\midrule"]
    for index, line in enumerate(grid.body):
        lines += [_cells(line), *([r"\midrule"] if index in grid.ends and index + 1 < len(grid.body) else [])]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*lines, *(f"% {note}" for note in grid.notes)]) + "\n"


def _cells(words: Sequence[str]) -> str:
    return " & ".join(map(_escaped, words)) + r" \\"


def _escaped(text: str) -> str:
    for sign in "&%#_$":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$")


def _csv(grid: Grid) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([grid.head, *grid.body])
    return text.getvalue()
