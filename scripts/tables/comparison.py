"""Runs of one experiment side by side, whatever was published.

Seeds of one method are pooled: the items of all of them give one accuracy, and questions about one theory count as
belonging together. The interval holds the spread between seeds too. Runs that differ in more than method, inner and
outer loop, evaluation and seed stand in tables of their own.
"""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.run.progress import duration
from common.tables.runs import Row, Run, Table, percent, repeated, rows_of, tables_of, unequal, verdict
from scripts.tables.grids import Grid, render

MOST_CLASSES = 10
TRAINED = "bag of words"
"""Classifiers with this in their name stand in every table, however they rank."""


def cells(rows: Sequence[Row], classes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Head and body as text."""
    recited = any(row.recall is not None for row in rows)
    head = ["method", "accuracy %", "95 % interval", "seeds", "questions", *(f"{name} %" for name in classes)]
    head += [*(["exact recall %"] if recited else []), "wall time"]
    body = []
    for row in rows:
        got, per_class = row.interval(), row.per_class()
        line = [row.title, percent(got.value), "exact" if row.exact else f"{percent(got.low)} to {percent(got.high)}"]
        line += [str(row.seeds), str(len(row.correct) // row.seeds)]
        line += [percent(per_class.get(name)) for name in classes]
        line += [percent(row.recall)] if recited else []
        body.append([*line, _time(row.seconds)])
    return head, body


def classes_of(table: Table, rows: Sequence[Row]) -> list[str]:
    """Answer words in the order of the labels, others behind them; none where they are too many to compare."""
    there = {name for row in rows for name in row.classes}
    if len(there) > MOST_CLASSES:
        return []
    return [name for name in dict.fromkeys([*table.runs[0].words.values(), *sorted(there)]) if name in there]


def grid_of(table: Table, rows: Sequence[Row], notes: Sequence[str]) -> Grid:
    """The rows as text."""
    head, body = cells(rows, classes_of(table, rows))
    blocks = [min(row.order[0], 3) for row in rows]
    ends = [index for index in range(len(rows) - 1) if blocks[index] != blocks[index + 1]]
    return Grid(table.name, head, body, ends=ends, notes=notes)


def show_csv(tables: Sequence[tuple[Table, list[Row]]]) -> None:
    """One line a row and class; shares from 0 to 1, seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("table method class accuracy low high seeds questions exact_recall wall_seconds".split())
    for table, rows in tables:
        for row in rows:
            got = row.interval()
            last = [row.seeds, len(row.correct) // row.seeds, row.recall, row.seconds]
            writer.writerow([table.name, row.title, "all", got.value, got.low, got.high, *last])
            for name, value in row.per_class().items():
                count = row.classes.count(name) // row.seeds
                writer.writerow([table.name, row.title, name, value, None, None, row.seeds, count, None, None])
    sys.stdout.write(text.getvalue())


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def show(root: Path, runs: Sequence[Run], unfinished: Sequence[str], form: str, shortcuts: int) -> None:
    """Print the tables of these runs.

    Raises:
        UserError: there are none.
    """
    if not runs:
        waiting = f" ({len(unfinished)} not finished: the same commands continue them)" if unfinished else ""
        raise UserError(f"root={root}: no finished run{waiting}; `make run` begins with one")
    tables = [(table, rows_of(table)) for table in tables_of(runs)]
    if form == "csv":
        show_csv(tables)
    for table, rows in tables if form != "csv" else ():
        rules = [row for row in rows if row.order[0] == 3]
        behind = [rule for rule in rules[shortcuts:] if TRAINED not in rule.title] if shortcuts else []
        hidden = f"{len(behind)} further shortcut rules, none better than these: --shortcuts 0" if behind else ""
        chosen = [row for row in rows if not any(row is other for other in behind)]
        notes = [*([hidden] if hidden else []), verdict(rows, table.paper), *unequal(rows)]
        sys.stdout.write(render(grid_of(table, chosen, notes), form) + "\n")
        sys.stdout.flush()
    for line in repeated(runs):  # beside the table, so that a file of it stays clean
        sys.stderr.write(f"counted once: {line}\n")
    for line in unfinished:
        sys.stderr.write(f"not finished: {line}\n")
