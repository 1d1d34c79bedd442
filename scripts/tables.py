"""Print the tables of the runs that are there.

    python -m scripts.tables                                     every run below runs/
    python -m scripts.tables experiment=proofwriter_repaired     one experiment
    python -m scripts.tables root=elsewhere --format md          for a README; csv for everything else

Seeds of one method are pooled: the items of all of them give one accuracy and one interval, and questions about one
theory count as belonging together. Runs that differ in more than method, inner and outer loop, evaluation and seed
stand in tables of their own.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.progress import duration
from scripts.rows import Row, Table, percent, read_runs, repeated, rows_of, tables_of, unequal, verdict

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
    """Answer words in the order of the labels, others behind them."""
    there = {name for row in rows for name in row.classes}
    return [name for name in dict.fromkeys([*table.runs[0].words.values(), *sorted(there)]) if name in there]


def show_term(table: Table, rows: Sequence[Row], hidden: str) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    head, body = cells(rows, classes_of(table, rows))
    grid = Grid(title=table.name, title_justify="left", caption=hidden or None, caption_justify="left")
    for index, name in enumerate(head):
        grid.add_column(name, justify="left" if index == 0 else "right")
    for index, line in enumerate(body):
        ends = index + 1 < len(rows) and min(rows[index].order[0], 3) != min(rows[index + 1].order[0], 3)
        grid.add_row(*line, end_section=ends)
    width = None if sys.stdout.isatty() else max(160, len(table.name))  # a log file has no width
    Console(markup=False, highlight=False, width=width).print(grid)


def show_md(table: Table, rows: Sequence[Row], hidden: str) -> None:
    head, body = cells(rows, classes_of(table, rows))
    lines = [f"**{table.name}**", "", _line(head), _line(["---", *["---:"] * (len(head) - 1)]), *map(_line, body)]
    sys.stdout.write("\n".join([*lines, "", *([hidden, ""] if hidden else [])]) + "\n")


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


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


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Options and key=value words.

    Raises:
        UserError: an unknown key.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="root=<folder of the runs, default runs>, paper=<name>, experiment=<name>; without them everything",
    )
    parser.add_argument("--format", choices=("term", "md", "csv"), default="term", help="default: term")
    parser.add_argument(
        "--shortcuts",
        type=int,
        default=5,
        metavar="N",
        help="list the N best shortcut rules and the trained classifiers; 0: all (default 5)",
    )
    options = parser.parse_args(words)
    given = {"root": "runs"}
    for word in options.words:
        key, equals, value = word.partition("=")
        if not equals or key not in ("root", "paper", "experiment"):
            raise UserError(f"{word}: write root=<folder>, paper=<name> or experiment=<name>; --help shows examples")
        given[key] = value
    return options, given


def show(words: Sequence[str]) -> None:
    """Read the runs and print their tables."""
    options, given = parse(words)
    root = Path(given["root"])
    runs, unfinished = read_runs(root, given.get("paper"), given.get("experiment"))
    if not runs:
        waiting = f" ({len(unfinished)} not finished: the same commands continue them)" if unfinished else ""
        raise UserError(f"root={root}: no finished run{waiting}; `make run` begins with one")
    tables = [(table, rows_of(table)) for table in tables_of(runs)]
    if options.format == "csv":
        show_csv(tables)
    for table, rows in tables if options.format != "csv" else ():
        rules = [row for row in rows if row.order[0] == 3]
        behind = [rule for rule in rules[options.shortcuts :] if TRAINED not in rule.title] if options.shortcuts else []
        hidden = f"{len(behind)} further shortcut rules, none better than these: --shortcuts 0" if behind else ""
        chosen = [row for row in rows if not any(row is other for other in behind)]
        (show_md if options.format == "md" else show_term)(table, chosen, hidden)
        sys.stdout.write("\n".join([verdict(rows), *unequal(rows), "", ""]))
        sys.stdout.flush()
    for line in repeated(runs):  # beside the table, so that a file of it stays clean
        sys.stderr.write(f"counted once: {line}\n")
    for line in unfinished:
        sys.stderr.write(f"not finished: {line}\n")


def main() -> None:
    """Print, or say what is wrong."""
    try:
        show(sys.argv[1:])
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
