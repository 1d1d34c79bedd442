"""Line charts and heat maps as inline SVG; colours come from the page's style sheet, by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 10, 40
"""Margins of the plot inside the drawing."""
DODGE = 5.0
"""Distance between the error bars of two methods at one place."""
DASHED, DOTTED = "dashed", "dotted"
QUIET = "quiet"
"""Class of what needs no reasoning: chance, shortcut rules."""


@dataclass(frozen=True)
class Point:
    """A value at `x`, between `low` and `high` where an interval is known; `tip` is shown on pointing at it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Series:
    """A line; `kind` is its class on the page, which sets the colour."""

    name: str
    kind: str
    points: Sequence[Point]
    marker: str = ""
    """circle, triangle, square or diamond; empty: none."""
    stroke: str = ""
    """Empty for a solid line; dashed with hollow markers, or dotted."""
    band: bool = False
    """The interval as a band; otherwise as bars."""
    faint: float = 1.0
    """Opacity, for several lines of one method."""


@dataclass(frozen=True)
class Axis:
    """Ends, ticks as (place, text), and what is counted."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str = ""
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(low: float, high: float, label: str) -> Axis:
    """An axis with up to about five round ticks that begins and ends at one."""
    width = (high - low) or abs(high) or 1.0
    rough = width / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil((low + width) / step - 1e-9)
    ticks = [(index * step, f"{index * step:.6g}") for index in range(first, last + 1)]
    return Axis(first * step, last * step, ticks, label)


def doubling(low: float, high: float, label: str) -> Axis:
    """A logarithmic axis over powers of two that holds both ends; they are above 0."""
    first, last = math.floor(math.log2(low) + 1e-9), math.ceil(math.log2(high) - 1e-9)
    last = max(last, first + 1)
    every = math.ceil((last - first) / 7)
    return Axis(
        2.0**first, 2.0**last, [(2.0**n, f"{2.0**n:.6g}") for n in range(first, last + 1, every)], label, log=True
    )


def logarithmic(low: float, high: float, label: str) -> Axis:
    """A logarithmic axis from and to 1, 2 or 5 times a power of ten that holds both ends; they are above 0."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places_ = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(place for place in places_ if place <= low * (1 + 1e-9))
    last = min(place for place in places_ if place >= high * (1 - 1e-9) and place > first)
    ticks = [(place, f"{place:.6g}") for place in places_ if first <= place <= last]
    if len(ticks) > 7:
        ticks = [(place, text) for place, text in ticks if text.strip("0.").startswith("1")]
    return Axis(first, last, ticks, label, log=True)


def places(names: Sequence[str], label: str) -> Axis:
    """An axis of named places 0, 1, 2, ..."""
    return Axis(-0.5, len(names) - 0.5, [(float(index), name) for index, name in enumerate(names)], label)


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str, *, dodge: bool = False) -> str:
    """An SVG of lines with markers and intervals; `dodge` sets series at equal places beside each other."""
    parts = [_frame(x, y)]
    beside = [each.name for each in series if any(point.low is not None for point in each.points) and not each.band]
    for each in series:
        shift = DODGE * (beside.index(each.name) - (len(beside) - 1) / 2) if dodge and each.name in beside else 0.0
        parts.append(_line(each, x, y, shift))
    label = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _frame(x: Axis, y: Axis) -> str:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in x.ticks:
        at = _x(x, value)
        parts.append(f'<path class="axis" d="M{at:.1f} {floor}v4"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 15}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    high = (TOP + floor) / 2
    turned = f'transform="rotate(-90 10 {high})" x="10" y="{high}"'
    parts.append(f'<text class="label" {turned} text-anchor="middle">{escape(y.label)}</text>')
    return "".join(parts)


def _line(series: Series, x: Axis, y: Axis, shift: float) -> str:
    at = [(_x(x, point.x) + shift, _y(y, point.y), point) for point in series.points]
    parts = []
    ranged = [
        (left, _y(y, point.low), _y(y, point.high))
        for left, _, point in at
        if point.low is not None and point.high is not None
    ]
    if series.band and len(ranged) > 1:
        over = [f"{left:.1f} {high:.1f}" for left, _, high in ranged]
        under = [f"{left:.1f} {low:.1f}" for left, low, _ in reversed(ranged)]
        parts.append(f'<path class="band" d="M{"L".join([*over, *under])}Z"/>')
    elif not series.band:
        parts += [f'<path class="bar" d="M{left:.1f} {low:.1f}V{high:.1f}"/>' for left, low, high in ranged]
    if len(at) > 1:
        kind = f"line {series.stroke}".strip()
        parts.append(f'<path class="{kind}" d="M{"L".join(f"{left:.1f} {top:.1f}" for left, top, _ in at)}"/>')
    for left, top, point in at:
        tip = f' data-tip="{escape(point.tip, quote=True)}"' if point.tip else ""
        shape = _marker(series.marker, left, top, hollow=series.stroke == DASHED)
        hit = f'<circle class="hit" cx="{left:.1f}" cy="{top:.1f}" r="7"{tip}/>' if point.tip else ""
        parts.append(shape + hit)
    faint = f' opacity="{series.faint:.2f}"' if series.faint < 1 else ""
    return f'<g class="series {series.kind}"{faint}>{"".join(parts)}</g>'


def _marker(name: str, x: float, y: float, *, hollow: bool) -> str:
    kind = "mark hollow" if hollow else "mark"
    if name == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    path = {
        "triangle": "m0 -4l3.8 6.8h-7.6z",
        "square": "m-3 -3h6v6h-6z",
        "diamond": "m0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
    }
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}{path[name]}"/>' if name in path else ""


def key(kind: str, marker: str, *, stroke: str = "", faint: float = 1.0) -> str:
    """A short line with its marker, for a legend."""
    line = f'<path class="{f"line {stroke}".strip()}" d="M1 6H25"/>'
    shape = _marker(marker, 13, 6, hollow=stroke == DASHED)
    faded = f' opacity="{faint:.2f}"' if faint < 1 else ""
    drawn = f'<g class="series {kind}"{faded}>{line}{shape}</g>'
    return f'<svg class="key" viewBox="0 0 26 12" aria-hidden="true">{drawn}</svg>'


@dataclass(frozen=True)
class Heat:
    """A map of `values[row][column]`; colours stand for the distance from `centre`, up to `most`."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    centre: float
    most: float
    label: str
    """Of the columns."""


def heat(shown: Heat, title: str) -> str:
    """An SVG with a cell for each value, its number written in it."""
    high, head, foot = 22, 4, 36
    letters = max(len(name) for name in shown.rows)
    left = min(150, 12 + 6 * letters)
    wide = min(72.0, (WIDTH - left - 4) / len(shown.columns))
    height = head + high * len(shown.rows) + foot
    parts = []
    for row, (name, values) in enumerate(zip(shown.rows, shown.values, strict=True)):
        top = head + row * high
        parts.append(f'<text class="tick" x="{left - 6}" y="{top + 15}" text-anchor="end">{escape(name)}</text>')
        for column, value in enumerate(values):
            far = (value - shown.centre) / shown.most if shown.most else 0.0
            strength = min(1.0, abs(far))
            kind, text = ("more" if far > 0 else "less"), f"{value:#.3g}"
            at = left + column * wide
            tip = escape(f"{name}, step {shown.columns[column]}: {value:.4g}", quote=True)
            box = f'x="{at:.1f}" y="{top}" width="{wide - 1.5:.1f}" height="{high - 1.5}"'
            parts.append(
                f'<rect class="none" {box}/><rect class="{kind}" {box} opacity="{strength:.2f}" data-tip="{tip}"/>'
            )
            if wide > 34:
                word = "cell strong" if strength > 0.6 else "cell"
                parts.append(
                    f'<text class="{word}" x="{at + wide / 2:.1f}" y="{top + 14.5}" text-anchor="middle">{text}</text>'
                )
    for column, name in enumerate(shown.columns):
        at = left + (column + 0.5) * wide
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{height - foot + 13}" text-anchor="middle">{escape(name)}</text>'
        )
    middle = left + wide * len(shown.columns) / 2
    parts.append(
        f'<text class="label" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{escape(shown.label)}</text>'
    )
    label = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
