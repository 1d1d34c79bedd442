"""The runs behind the published tables in groups of seeds, and their learning curves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.data.textfile import read_json_lines
from common.run.folder import METRICS
from common.tables.cells import Measure, Overrides, Table, merged
from common.tables.damaged import reading
from common.tables.estimates import over_values
from common.tables.intervals import Kind
from common.tables.join import Joined
from common.tables.runs import Run
from scripts.report.axes import axis_of, panels_of
from scripts.report.charts import Point, Series, key, linear, lines
from scripts.report.colours import Colours, method_of
from scripts.report.page import Cell, DataTable, Figure, Head, Line

MOST = 60
"""Points of a curve; more are thinned evenly."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, named by the first cell that they stand behind."""

    panel: str
    row: str
    method: str
    runs: Sequence[Run]
    new: bool
    """Whether no table before has them."""

    @property
    def name(self) -> str:
        """Row and panel."""
        return f"{self.row}, {self.panel}" if self.panel else self.row

    @property
    def selected_by(self) -> tuple[str, Measure]:
        """The metric of its curves, and how it is read."""
        return self.runs[0].selected_by


def note(groups: Sequence[Group]) -> str:
    """What all curves show."""
    metrics = " or ".join(dict.fromkeys(group.selected_by[0].replace("_", " ") for group in groups)) or "scores"
    return (
        f"{metrics[0].upper()}{metrics[1:]} on the dev split; lines are means over seeds, bands their 95 % intervals "
        "over seeds, Student's t."
    )


def groups_of(tables: Sequence[Joined]) -> Iterator[tuple[Joined, list[Group]]]:
    """The runs behind each table, by column where columns have runs of their own, each once a panel."""
    seen: set[str] = set()
    for joined in tables:
        table = joined.table
        apart = {row: title for title, rows in panels_of(table).items() for row in rows}
        by_column = any(axis.overrides or axis.over for axis in table.columns.values())
        panels = list(table.columns) if by_column else list(dict.fromkeys(apart.values()))
        found: dict[tuple[int, str], Group] = {}
        for cell in table.cells():
            panel = cell.column if by_column else apart[cell.row]
            for words in cell.runs:
                runs = [run for _, run in sorted(joined.found.get(words, {}).items())]
                if not runs:
                    continue
                method = method_of(merged(table.overrides, table.rows[cell.row].overrides))
                title, folder = _panel_title(table, panel, words, cell.runs), str(runs[0].folder)
                found.setdefault(
                    (panels.index(panel), folder), Group(title, cell.row, method, runs, folder not in seen)
                )
                seen |= {str(run.folder) for run in runs}
        yield joined, [found[place] for place in sorted(found, key=lambda place: place[0])]


def _panel_title(table: Table, panel: str, words: Overrides, together: Sequence[Overrides]) -> str:
    """The panel's name; with what is counted, where it is a bare number, and what is apart, where runs are averaged."""
    bare = table.axis and panel in table.columns and " " not in panel and "=" not in panel
    title = f"{panel} {table.axis}" if bare else panel
    own = [word for word in words if not all(word in other for other in together)]
    return ", ".join([title, *own])


def curve(group: Group) -> list[tuple[int, float, float, float]]:
    """(step, mean over seeds, low, high) at the steps that all runs have, in the unit of the metric; the interval is of
    seeds alone.
    """
    metric, measure = group.selected_by
    read = [dict(_records(run, f"dev/{metric}")) for run in group.runs]
    steps = sorted(set.intersection(*(set(each) for each in read)))
    if len(steps) > MOST:
        steps = [steps[round(index * (len(steps) - 1) / (MOST - 1))] for index in range(MOST)]
    points = []
    for step in steps:
        mean = over_values("", [each[step] for each in read])
        low, high = mean.interval()
        if measure.kind is Kind.share:
            low, high = max(low, 0.0), min(high, 1.0)
        points.append((step, measure.factor * mean.value, measure.factor * low, measure.factor * high))
    return points


def _records(run: Run, metric: str) -> Iterator[tuple[int, float]]:
    path = run.folder / METRICS
    with reading(run.folder):
        if path.is_file() and path.stat().st_size:
            for _, record in read_json_lines(path, remedy="run again"):
                if isinstance(record.get(metric), (int, float)):
                    yield int(record["step"]), float(record[metric])


def figure(joined: Joined, groups: Sequence[Group], colours: Colours) -> Figure | None:
    """Dev scores against steps, a panel for each column or set of settings with new runs; None: none has."""
    new = {group.panel for group in groups if group.new}
    drawn: dict[str, list[tuple[Group, list[tuple[int, float, float, float]]]]] = {}
    for group in groups:
        if group.panel in new and (points := curve(group)):
            drawn.setdefault(group.panel, []).append((group, points))
    if not drawn:
        return None
    rows: dict[str, list[str]] = {}
    for name in joined.table.rows:
        for group in (group for curves in drawn.values() for group, _ in curves if group.row == name):
            own = rows.setdefault(group.method, [])
            own += [] if name in own else [name]
    legend: dict[str, tuple[str, str]] = {}
    panels, body = [], []
    metric, measure = groups[0].selected_by
    for title, curves in drawn.items():
        series = []
        for group, points in curves:
            alike = rows[group.method]
            faint = 1.0 - 0.65 * alike.index(group.row) / len(alike)
            series.append(_series(group, points, colours, faint))
            legend.setdefault(group.row, (key(colours.kind(group.method), "", faint=faint), group.row))
            body.append(_numbers(group, points))
        last = max(point.x for each in series for point in each.points)
        x = linear(0, max(last, 1), groups[0].runs[0].paper.steps)
        y = axis_of(measure, f"dev {metric.replace('_', ' ')}", series)
        panels.append((title, lines(series, x, y, f"Learning curves: {joined.table.title} {title}".strip())))
    first, best, last_one = (f"{name} {measure.unit}".rstrip() for name in ("first", "best", "last"))
    head = [Head("runs", number=False), *(Head(name) for name in ("seeds", first, best, "at step", last_one))]
    return Figure(
        f"Learning curves, {joined.table.title}",
        panels,
        list(legend.values()),
        numbers=DataTable(head, body, f"Learning curves in numbers, {joined.table.title}"),
    )


def _series(group: Group, points: Sequence[tuple[int, float, float, float]], colours: Colours, faint: float) -> Series:
    several, text = len(group.runs) > 1, group.selected_by[1].text
    drawn = []
    for step, value, low, high in points:
        tip = f"{group.row}, step {step}: {text(value)}"
        tip += f" ({text(low)} to {text(high)})" if several else ""
        drawn.append(Point(step, value, low if several else None, high if several else None, tip))
    return Series(group.row, colours.kind(group.method), drawn, band=True, faint=faint)


def _numbers(group: Group, points: Sequence[tuple[int, float, float, float]]) -> Line:
    measure = group.selected_by[1]
    best = (max if measure.higher_is_better else min)(points, key=lambda point: point[1])
    first, most, last = (Cell(measure.text(value), value=value) for value in (points[0][1], best[1], points[-1][1]))
    cells = [Cell(group.name), Cell(str(len(group.runs))), first, most, Cell(str(best[0])), last]
    return Line(cells)
