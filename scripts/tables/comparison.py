"""Runs of one experiment side by side, whatever was published.

Seeds of one method are pooled: the items of all of them give one number, and those of one group count as belonging
together. The interval holds the spread between seeds too. Runs that differ in more than method, inner and
outer loop, evaluation and seed stand in tables of their own.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import UserError
from common.run.progress import duration
from common.tables.cells import QUIET, Measure, Role
from common.tables.comparison import Row, Table, rows_of, tables_of, unequal
from common.tables.published import Paper, known
from common.tables.runs import Run, repeated
from scripts.tables.grids import Grid, render

MOST_CLASSES = 10
STRICT = 0.99
"""Confidence of the sentence below a table."""


def cells(table: Table, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body as text."""
    classes, (title, main) = classes_of(table, rows), table.shows.main
    others = {
        name: each.measure
        for name, each in table.shows.columns.items()
        if any(row.others.get(name) is not None for row in rows)
    }
    unit = main.measure.unit
    head = ["method", _head(title, unit), "95 % interval", "seeds", table.shows.items]
    head += [*(_head(name, unit) for name in classes), *(_head(name, each.unit) for name, each in others.items())]
    head += ["wall time"]
    body = []
    for row in rows:
        got, parts = row.interval(), row.by_slice()
        between = f"{_text(main.measure, got.low)} to {_text(main.measure, got.high)}"
        line = [row.title, _text(main.measure, got.value), "exact" if row.exact else between]
        line += [str(len(row.seeds)), str(row.items)]
        line += [_text(main.measure, parts[name][0] if name in parts else None) for name in classes]
        line += [_text(measure, row.others.get(name)) for name, measure in others.items()]
        body.append([*line, _time(row.seconds)])
    return head, body


def _head(title: str, unit: str) -> str:
    return f"{title} {unit}".rstrip()


def _text(measure: Measure, value: float | None) -> str:
    return measure.text(None if value is None else measure.factor * value)


def classes_of(table: Table, rows: Sequence[Row]) -> list[str]:
    """Values of the slice that items are told apart by, in the order of the paper's file, others behind them; none
    where they are too many to compare.
    """
    there = {name for row in rows for name in row.by_slice()}
    if len(there) > MOST_CLASSES:
        return []
    return [name for name in dict.fromkeys([*table.shows.first, *sorted(there)]) if name in there]


def grid_of(table: Table, rows: Sequence[Row], notes: Sequence[str]) -> Grid:
    """The rows as text."""
    head, body = cells(table, rows)
    blocks = [Role.rule if row.role in QUIET else row.role for row in rows]
    ends = [index for index in range(len(rows) - 1) if blocks[index] != blocks[index + 1]]
    return Grid(table.name, head, body, ends=ends, notes=notes)


def show_csv(tables: Sequence[tuple[Table, list[Row]]], papers: Iterable[str]) -> None:
    """One line a row and class, with the columns of all `papers`; numbers as they are, such as shares from 0 to 1, and
    seconds.
    """
    shown = [known(paper).comparison for paper in dict.fromkeys(papers)]
    names = [_key(name) for each in shown for name in each.columns if name != each.main[0]]
    head = ["table", "method", "class", *(_key(each.main[0]) for each in shown), "low", "high", "seeds"]
    head += [*(each.items for each in shown), *names, "wall_seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(head)), lineterminator="\n")
    writer.writeheader()
    for table, rows in tables:
        title, items = _key(table.shows.main[0]), table.shows.items
        for row in rows:
            got, seeds = row.interval(), len(row.seeds)
            line = {"table": table.name, "method": row.title, "class": "all", title: got.value, "seeds": seeds}
            line |= {_key(name): value for name, value in row.others.items()}
            line |= {"low": got.low, "high": got.high, items: row.items, "wall_seconds": row.seconds}
            writer.writerow(line)
            for name, (value, count) in row.by_slice().items():
                line = {"table": table.name, "method": row.title, "class": name, title: value, "seeds": seeds}
                writer.writerow(line | {items: count})
    sys.stdout.write(text.getvalue())


def verdict(rows: Sequence[Row], paper: Paper) -> str:
    """One sentence: does the paper's method beat what needs no reasoning?"""
    name, (title, main) = paper.title, paper.comparison.main
    ours = [row for row in rows if row.role is Role.method]
    rules = [row for row in rows if row.role in QUIET]
    if not ours:
        return f"No finished run of {name} here."
    row = next((row for row in ours if row.method == paper.first(Role.method)), ours[0])
    got, unit = row.interval(STRICT), f" {main.measure.unit}".rstrip()
    value, low, high = (_text(main.measure, each) for each in (got.value, got.low, got.high))
    text = f"{row.title}: {title} {value}{unit}, 99 % interval {low} to {high}"
    if not rules:
        return f"{text}; no finished run of method={paper.first(Role.rule)} to compare it with."
    values = {str(place): rule.interval().value for place, rule in enumerate(rules)}
    best = rules[int(main.measure.best(values))]
    rule, most = best.title[0].lower() + best.title[1:], best.interval().value
    if got.low > most:
        relation = f"{name} lies above it, beyond the interval"
    elif got.high < most:
        relation = f"{name} lies below it, beyond the interval"
    else:
        relation = f"it lies inside the interval, so {name} is not shown to beat it"
    their = f"{_text(main.measure, most)}{unit}"
    return f"{text}; the best of {len(rules)} rules without reasoning ({rule}) gets {their}: {relation}."


def _key(title: str) -> str:
    return title.replace(" ", "_")


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
        show_csv(tables, (run.results.paper for run in runs))
    text = []
    for table, rows in tables if form != "csv" else ():
        rules = [row for row in rows if row.role is Role.rule]
        behind = [rule for rule in rules[shortcuts:] if not rule.always] if shortcuts else []
        hidden = f"{len(behind)} further shortcut rules, none better than these: --shortcuts 0" if behind else ""
        chosen = [row for row in rows if not any(row is other for other in behind)]
        notes = [*([hidden] if hidden else []), verdict(rows, known(table.paper)), *unequal(rows)]
        text.append(render(grid_of(table, chosen, notes), form) + "\n")
    sys.stdout.write("".join(text))
    sys.stdout.flush()
    for line in repeated(runs):  # beside the table, so that a file of it stays clean
        sys.stderr.write(f"counted once: {line}\n")
    for line in unfinished:
        sys.stderr.write(f"not finished: {line}\n")
