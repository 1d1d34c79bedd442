"""Budget studies of a published table: what more training changes on dev, and which budget is enough.

    python -m reckoning.train -m +sweep=budget_table1 scale=cpu hydra/launcher=local     its runs
    python -m scripts.budget paper=reckoning table=table1 scale=cpu                      what they say
    python -m scripts.budget paper=reckoning table=table1 output=table1.svg --format md  and as a figure
    python -m scripts.budget paper=reckoning table=table1 inner.eps=1e-8                 of runs with it besides

Of each method the learning rate counts that is the best on dev at the largest budget. A budget is enough where none
beyond it changes any method by two points; else the column is still learning, and `scripts.tables` has no verdict
there. A budget that is enough belongs into conf/<paper>/budget/<experiment>_<scale>.yaml.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic
from common.tables import published, sweep
from common.tables.budgets import ENOUGH, Study, Trial, data_of, method_of, studies_of
from common.tables.cells import QUIET, Overrides, Table, merged
from common.tables.damaged import without_damaged
from common.tables.join import Verdict
from common.tables.runs import read_runs
from scripts.report import colours as of_report
from scripts.report.axes import axis_of
from scripts.report.charts import HEIGHT, WIDTH, Axis, Point, Series, key, lines, logarithmic
from scripts.tables.grids import FORMATS, Grid, render
from scripts.tables.published_tables import overrides_of
from scripts.words import mistakes_told, split_off, values_of

KEYS = ("root", "paper", "table", "scale", "output")
HEAD, LEGEND, GAP = 30, 22, 16
STYLE = (
    "text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#5d6670}"
    ".title{font-weight:600;font-size:12px;fill:#1d2126}.grid{stroke:#dfe3e7;fill:none}"
    ".axis{stroke:#5d6670;fill:none}.line{stroke-width:1.6;fill:none;stroke-linejoin:round}"
)
FAINT = 0.4
"""Opacity of the scores on the way, beside those of budgets."""


@dataclass(frozen=True)
class Column:
    """A column of the table with its study."""

    name: str
    study: Study
    trials: Mapping[str, Trial]
    """Row -> its trial at the best rate."""
    unstudied: Sequence[str]
    """Rows whose methods the study lacks."""

    @property
    def said(self) -> str:
        """Which budget is enough."""
        if self.study.enough is None:
            return f"{self.name}: {Verdict.learning}."
        return f"{self.name}: {self.study.enough} steps; beyond them no method changes by {ENOUGH:g} points."


def columns_of(root: Path, table: Table, scale: str, words: Overrides = ()) -> list[Column]:
    """The columns that have a study below `root`; `words` are overrides of every cell, whose own ones win over them.

    Raises:
        UserError: there is no such folder, or no column has one.
    """
    runs, unfinished = read_runs(root, table.paper, None)
    at = [run for run in runs if run.results.scale == scale]
    studies = without_damaged(at, studies_of)
    found = []
    with sweep.composing(table.paper, table.command) as compose:
        cells = list(table.at(scale).cells()) if studies else []
        for name in table.columns:
            chosen: dict[str, tuple[str, str]] = {}
            for cell in cells:
                if cell.column == name and len(cell.runs) == 1 and table.role(cell.row) not in QUIET:
                    with sweep.naming(table, cell.runs[0]):
                        composed = sweep.keys_of(compose(merged([f"scale={scale}"], words, cell.runs[0])))
                    keys = {key: value for key, value in composed.items() if key != "seed"}  # as of a run
                    chosen.setdefault(cell.row, (data_of(keys), method_of(keys)))
            study = next((studies[data] for data, _ in chosen.values() if data in studies), None)
            if study is not None:
                there = {row: method for row, (_, method) in chosen.items() if method in study.trials}
                trials = {row: study.best(method) for row, method in there.items()}
                found.append(Column(name, study, trials, [row for row in chosen if row not in there]))
    if not found:
        begun = f", {len(unfinished)} runs are not finished" if unfinished else ""
        raise UserError(
            f"root={root}: no finished run of a study of {table.paper} {table.name} at scale={scale}{begun}; "
            f"python -m {table.paper}.{table.command} -m +sweep=budget_{table.name} scale={scale} makes them"
        )
    return found


def grid_of(table: Table, scale: str, columns: Sequence[Column]) -> Grid:
    """A line for each method: its rates, and at each budget steps, dev and seconds."""
    head = ["column", "row", "rates", "best", "steps", "dev", "seconds"]
    body, ends = [], []
    for column in columns:
        text = column.study.measure.text
        for row, trial in column.trials.items():
            rates = column.study.trials[method_of(trial.run.keys)]
            line = [column.name, row, ", ".join(f"{each.rate:g}" for each in rates), f"{trial.rate:g}"]
            line.append(", ".join(str(point.steps) for point in trial.points))
            line.append(", ".join(text(point.score) for point in trial.points))
            body.append([*line, ", ".join(f"{point.seconds:.0f}" for point in trial.points)])
        ends.append(len(body) - 1)
    notes = [column.said for column in columns]
    notes += [f"{column.name}: not studied: {'; '.join(column.unstudied)}." for column in columns if column.unstudied]
    title = f"{table.paper} {table.name}, scale={scale}. Budget study: {table.title}"
    return Grid(title, head, body, left=2, ends=ends[:-1], notes=notes)


def draw(table: Table, columns: Sequence[Column], command: str) -> str:
    """The SVG: a row of two panels for each column, dev against steps and against seconds."""
    shown = of_report.Colours([table])
    hues = dict(
        re.findall(r"--(c\d): (#\w+)", (files("scripts.report") / "style.css").read_text(encoding="utf-8"))[
            : of_report.COUNT
        ]
    )
    style = "".join(f".{name} .line{{stroke:{hue}}}.{name} .mark{{fill:{hue}}}" for name, hue in hues.items())
    parts, high = [f'<text class="title" x="{GAP}" y="18">{escape(table.title)}</text>'], HEAD
    rows = {row: method for column in columns for row in column.trials if (method := _method(table, row))}
    for place, (row, method) in enumerate(rows.items()):
        at = GAP + place % 2 * (WIDTH + GAP), high + place // 2 * LEGEND
        parts.append(_placed(key(shown.kind(method), shown.marker(method)), *at, 26, 12))
        parts.append(f'<text x="{at[0] + 34}" y="{at[1] + 10}">{escape(row)}</text>')
    high += LEGEND * ((len(rows) + 1) // 2) + GAP
    for column in columns:
        parts.append(f'<text class="title" x="{GAP}" y="{high}">{escape(column.said)}</text>')
        for place, label in enumerate(("outer steps", "seconds")):
            drawn = _panel(column, table, shown, label)
            parts.append(_placed(drawn, GAP + place * (WIDTH + GAP), high + 8, WIDTH, HEIGHT))
        high += HEIGHT + 3 * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH + 3 * GAP} {high}" role="img">'
        f"<title>{escape(table.title)}</title><desc>{escape(command)}</desc><style>{STYLE}{style}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(column: Column, table: Table, shown: of_report.Colours, label: str) -> str:
    """Dev on the way, faint, and at each budget."""
    series = []
    for row, trial in column.trials.items():
        method = _method(table, row)
        for points, marker, faint in ((trial.curve, "", FAINT), (trial.points, shown.marker(method), 1.0)):
            at = [(point.steps if label == "outer steps" else point.seconds, point.score) for point in points]
            drawn = [Point(x, y) for x, y in at if x > 0]
            series.append(Series(row, shown.kind(method), drawn, marker, faint=faint))
    places = [point.x for each in series for point in each.points]
    x: Axis = logarithmic(min(places), max(places), label)
    y = axis_of(column.study.measure, "dev", series)
    return lines(series, x, y, f"{column.name}: dev against {label}")


def _placed(drawn: str, x: float, y: float, width: float, height: float) -> str:
    """A drawing at a place of a larger one."""
    return drawn.replace("<svg ", f'<svg x="{x}" y="{y}" width="{width}" height="{height}" ', 1)


def _method(table: Table, row: str) -> str:
    return of_report.method_of(merged(table.overrides, table.rows[row].overrides))


def show(words: Sequence[str]) -> None:
    """Print what the study says and, where `output=` names a file, draw it.

    Raises:
        UserError: a mistake in the words, no study, or a place that cannot be written to.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="paper=, table=, scale= (cpu), root= (runs), output=; overrides of every cell",
    )
    parser.add_argument("--format", choices=FORMATS, default="term", help="default: term")
    options = parser.parse_intermixed_args(words)
    own, others = split_off(options.words, KEYS)
    given = {"root": "runs", "scale": "cpu", **values_of(own, KEYS)}
    if missing := [name for name in ("paper", "table") if name not in given]:
        raise UserError(f"{missing[0]}= is missing; --help shows an example")
    table = published.read(given["paper"]).table(given["table"])
    overrides = overrides_of(others, [table.paper], KEYS)
    columns = columns_of(Path(given["root"]), table, given["scale"], overrides)
    sys.stdout.write(render(grid_of(table, given["scale"], columns), options.format))
    if "output" in given:
        named = [f"{name}={given[name]}" for name in KEYS[1:]]  # where the runs lay is no part of the picture
        text = draw(table, columns, shlex.join(["python", "-m", "scripts.budget", *named, *overrides]))
        path = Path(given["output"])
        try:
            write_atomic(path, text.encode())
        except OSError as error:
            raise UserError(f"output={path}: cannot be written ({error.strerror}); name another file") from error


def main() -> None:
    """Print, or say what is wrong."""
    with mistakes_told():
        show(sys.argv[1:])


if __name__ == "__main__":
    main()
