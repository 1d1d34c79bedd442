"""Tables whose columns are points along an axis, as figures: accuracy against hops, distractors, inner steps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.tables.cells import Measure, Role, Table, key_of, merged
from common.tables.intervals import Kind
from common.tables.join import Filled, Joined
from scripts.report.charts import DASHED, DOTTED, Axis, Point, Series, key, linear, lines, places
from scripts.report.colours import MARKERS, Colours, method_of
from scripts.report.page import Figure
from scripts.report.tables import quiet

FAINT = 0.55
"""Opacity of further rows of one method in a panel."""
PERCENT = Axis(0, 100, [(value, str(value)) for value in (0, 25, 50, 75, 100)])


def figure(joined: Joined, colours: Colours) -> Figure:
    """A panel for each set of settings that rows share besides the method, and for each set of columns; published
    numbers are dashed.
    """
    table = joined.table
    cells = {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}
    panels: list[tuple[str, str]] = []
    legend: dict[str, tuple[str, str]] = {}
    for title, rows in panels_of(table).items():
        looks = _looks(table, rows, colours)
        for part, names in _sets(list(table.columns)).items():
            series = [each for row in rows for each in _series(table, row, names, cells, looks[row])]
            if series:
                x = places([_short(name.removeprefix(f"{part}, ")) for name in names], table.axis)
                y = axis_of(next(map(table.measure, names)), _what(table), series)
                whole = ", ".join(filter(None, (title, part)))
                panels.append((whole, lines(series, x, y, f"{table.title} {whole}".strip(), dodge=True)))
        legend |= {text: drawn for text, drawn in _legend(table, rows, cells, looks) if text not in legend}
    caption = "Solid: reproduced, with 95 % intervals. Dashed, hollow: published."
    empty = "" if panels else "No run yet, and no published value was reached."
    return Figure(f"{table.title}, scale={joined.scale}", panels, list(legend.values()), caption, empty)


@dataclass(frozen=True)
class _Look:
    """How a row is drawn."""

    kind: str
    marker: str
    stroke: str
    faint: float
    name: str
    """In the legend."""


def _looks(table: Table, rows: Sequence[str], colours: Colours) -> dict[str, _Look]:
    """The look of each row of a panel: rows of one method share its colour, and those after the first are fainter, each
    with a marker of its own and its whole name in the legend.
    """
    found: dict[str, _Look] = {}
    methods: list[str] = []
    for row in rows:
        method = method_of(merged(table.overrides, table.rows[row].overrides))
        before = methods.count(method)
        methods.append(method)
        kind, marker = colours.kind(method), colours.marker(method)
        if before and marker:
            marker = MARKERS[(MARKERS.index(marker) + before) % len(MARKERS)]
        name = row if before else row.partition(", ")[0]
        found[row] = _Look(kind, marker, _stroke(table, row), FAINT if before and marker else 1.0, name)
    return found


def _sets(columns: Sequence[str]) -> dict[str, list[str]]:
    """What columns share before a comma, as `4 out` of `4 out, 2`, with those columns; "" without such."""
    found: dict[str, list[str]] = {}
    for name in columns:
        found.setdefault(name.rpartition(", ")[0], []).append(name)
    return found


def panels_of(table: Table) -> dict[str, list[str]]:
    """Title -> rows whose settings are equal but for the method."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, row in table.rows.items():
        words = merged(table.overrides, row.overrides)
        groups.setdefault(tuple(word for word in words if key_of(word) != "method"), []).append(name)
    found: dict[str, list[str]] = {}
    shared = set.intersection(*(set(words) for words in groups))
    for words, rows in groups.items():
        own = [word for word in words if word not in shared]
        title = _title(own, [row for row in rows if not quiet(table, row)] or rows) if len(groups) > 1 else ""
        found.setdefault(title, []).extend(rows)
    return found


def _title(words: Sequence[str], rows: Sequence[str]) -> str:
    """What the rows' names share behind or before their first comma, else the settings that set them apart."""
    behind = {name.partition(", ")[2] for name in rows}
    if len(behind) == 1 and (shared := behind.pop()):
        return shared[0].upper() + shared[1:]
    before = {name.partition(", ")[0] for name in rows}
    if len(rows) == 1:
        return rows[0]
    return before.pop() if len(before) == 1 else ", ".join(words)


def _short(column: str) -> str:
    """`2` for `on 2 hops` and `N=2`; names without a number stay."""
    found = re.search(r"\d+", column)
    return found[0] if found else column


def _series(
    table: Table, row: str, names: Sequence[str], cells: Mapping[tuple[str, str], Filled], look: _Look
) -> list[Series]:
    kind, marker, faint = look.kind, look.marker, look.faint
    there = [(place, cells[row, name]) for place, name in enumerate(names) if (row, name) in cells]
    published, ours = [], []
    for place, cell in there:
        column = names[place]
        known, text = cell.cell.published, table.measure(column).text
        if known is not None and known.value is not None:
            published.append(Point(place, known.value, tip=f"{row}, {column}: published {text(known.value)}"))
        if cell.value is not None:
            tip = f"{row}, {column}: {text(cell.value)} ({text(cell.low)} to {text(cell.high)})"
            ours.append(Point(place, cell.value, cell.low, cell.high, tip))
    if quiet(table, row):
        whole = len(there) == 1 and len(ours) == 1  # one number for the whole axis
        flat = [Point(place, ours[0].y) for place in (-0.5, len(names) - 0.5)] if whole else []
        points = flat or [Point(point.x, point.y, tip=point.tip) for point in ours]
        return [Series(row, kind, points, marker, stroke=look.stroke)] if points else []
    found = [Series(f"{row} (published)", kind, published, marker, stroke=DASHED)] if published else []
    return [*found, *([Series(row, kind, ours, marker, faint=faint)] if ours else [])]


def _stroke(table: Table, row: str) -> str:
    """Guesses are dotted."""
    return DOTTED if table.role(row) is Role.chance else ""


def _what(table: Table) -> str:
    """What its columns show, where it is the same in all."""
    found = {(column.metric or table.metric).partition("@")[0] for column in table.columns.values()}
    return found.pop().replace("_", " ") if len(found) == 1 else ""


def axis_of(measure: Measure, what: str, series: Sequence[Series]) -> Axis:
    """The upright axis of `what`: the whole of per cent that are shares, else as far as the points go."""
    label = f"{what} {measure.unit}".strip()
    if measure.unit == "%" and measure.kind is Kind.share:
        return Axis(PERCENT.low, PERCENT.high, PERCENT.ticks, label)
    values = [value for each in series for p in each.points for value in (p.y, p.low, p.high) if value is not None]
    return linear(min([0.0, *values]), max(values), label)


def _legend(
    table: Table, rows: Sequence[str], cells: Mapping[tuple[str, str], Filled], looks: Mapping[str, _Look]
) -> list[tuple[str, tuple[str, str]]]:
    """Text and key of each row of a panel that has something to show."""
    found = []
    for name in rows:
        there = [cell for (other, _), cell in cells.items() if other == name]
        known = [cell.cell.published.value for cell in there if cell.cell.published is not None]
        if any(value is not None for value in (*known, *(cell.value for cell in there))):
            look = looks[name]
            drawn = key(look.kind, look.marker, stroke=look.stroke, faint=look.faint)
            found.append((look.name, (drawn, look.name)))
    return found
