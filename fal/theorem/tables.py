"""Cells as a table: means over seeds with intervals, exponents beside the predicted ones, earlier measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.run.results import Interval
from fal.theorem.cells import Cell
from fal.theory_config import FitConfig, ReferenceConfig


@dataclass(frozen=True)
class Fit:
    """An exponent over the cells that all seeds have a value in."""

    config: FitConfig
    exponent: Interval | None
    """Mean over the seeds' own fits; None where fewer than two cells are left."""
    residual: float
    """Root mean square of log y around the line through the seeds' means."""
    cells: int

    @property
    def name(self) -> str:
        """As in `results.json`."""
        return f"exponent_{self.config.y}_on_{self.config.x}"


@dataclass(frozen=True)
class Compared:
    """A cell beside a number measured before."""

    config: ReferenceConfig
    measured: float | None

    @property
    def deviation(self) -> float | None:
        """Relative."""
        return None if self.measured is None else self.measured / self.config.value - 1

    @property
    def holds(self) -> bool:
        """Within the tolerance?"""
        return self.deviation is not None and abs(self.deviation) <= self.config.tolerance


def mean_of(values: Sequence[float | None], confidence: float) -> Interval | None:
    """Mean over seeds with Student's interval; None where a seed has no value."""
    from scipy.stats import t

    if any(value is None for value in values):
        return None
    found = np.array(values, dtype=float)
    mean, count = float(found.mean()), len(found)
    if count == 1:
        return Interval(mean, 1, mean, mean)
    half = float(t.ppf((1 + confidence) / 2, count - 1) * found.std(ddof=1) / math.sqrt(count))
    return Interval(mean, count, mean - half, mean + half)


def compare_with_first(cells: Sequence[Cell]) -> None:
    """Give every cell `from_first`: the largest difference of its losses, at any record, from those of the first cell;
    none where records were taken at other rounds.
    """
    curves = [np.array([record["robust"].tolist() for record in cell.records]) for cell in cells]
    for cell, curve in zip(cells, curves, strict=True):
        if curve.size and curve.shape == curves[0].shape:
            cell.values["from_first"] = np.abs(curve - curves[0]).max(0).tolist()


def fit(cells: Sequence[Cell], config: FitConfig, confidence: float) -> Fit:
    """The exponent of `config.y` on `config.x`."""
    used = [cell.values for cell in cells if _there(cell, config.y) and _there(cell, config.x)]
    x, y = (np.array([values[name] for values in used], dtype=float) for name in (config.x, config.y))
    if len(used) and config.log_x and (x <= 0).any():
        keep = (x > 0).all(1)
        x, y = x[keep], y[keep]
    if len(x) < 2 or np.ptp(x[:, 0]) == 0:
        return Fit(config, None, math.nan, len(x))
    x, y = np.log(x) if config.log_x else x, np.log(y)
    slopes = [float(np.polyfit(x[:, run], y[:, run], 1)[0]) for run in range(x.shape[1])]
    x, y = x.mean(1), y.mean(1)
    left = y - np.polyval(np.polyfit(x, y, 1), x)
    return Fit(config, mean_of(slopes, confidence), float(np.sqrt((left**2).mean())), len(x))


def compared(cells: Sequence[Cell], config: ReferenceConfig, confidence: float) -> Compared:
    """The cell that `config.where` tells of."""
    for cell in cells:
        if all(_same(cell.change.get(key), value) for key, value in config.where.items()):
            found = mean_of(cell.values[config.metric], confidence)
            return Compared(config, None if found is None else found.value)
    return Compared(config, None)


def lines(cells: Sequence[Cell], columns: Sequence[str], confidence: float) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell.change))
    head = [*(key.rpartition(".")[2] for key in keys), *columns]
    rows = []
    for cell in cells:
        own = [text(cell.change.get(key)) for key in keys]
        rows.append([*own, *(shown(cell.values.get(name), confidence) for name in columns)])
    return head, rows


def summary(fits: Sequence[Fit], found: Sequence[Compared]) -> list[str]:
    """Fits and comparisons in words."""
    told = []
    for each in fits:
        y, x, exponent = each.config.y, each.config.x, each.exponent
        power = f"{y} ~ {x}^p" if each.config.log_x else f"log {y} ~ p {x}"
        if exponent is None:
            told.append(f"{power}: no fit, {each.cells} cell(s) have both")
            continue
        predicted = "" if each.config.predicted is None else f", predicted {each.config.predicted:.3g}"
        told.append(
            f"{power}: p = {exponent.value:.3f} ({exponent.low:.3f} to {exponent.high:.3f} over {exponent.count} "
            f"seeds){predicted}; residual {each.residual:.3f} over {each.cells} cells"
        )
    for one in found:
        where = ", ".join(f"{key}={text(value)}" for key, value in one.config.where.items()) or "the cell"
        measured = "not reached" if one.measured is None else f"{one.measured:.4g}"
        deviation = "" if one.deviation is None else f" ({100 * one.deviation:+.1f} %)"
        verdict = "within" if one.holds else "OUTSIDE"
        told.append(
            f"{where}: {one.config.metric} {measured}, before {one.config.value:.4g}{deviation}, "
            f"{verdict} {100 * one.config.tolerance:.0f} %"
        )
    return told


def metrics_of(
    cells: Sequence[Cell], fits: Sequence[Fit], columns: Sequence[str], confidence: float
) -> dict[str, Interval]:
    """What `results.json` holds: exponents, and the columns of every cell."""
    metrics = {each.name: each.exponent for each in fits if each.exponent is not None}
    for cell in cells:
        name = "_".join(f"{key.rpartition('.')[2]}_{text(value)}" for key, value in cell.change.items())
        for column in columns:
            values = cell.values.get(column)
            found = None if values is None else mean_of(values, confidence)
            if found is not None:
                metrics[f"{column}_{name}" if name else column] = found
    return metrics


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    ruled = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled) + "\n"


def page(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], told: Sequence[str]) -> str:
    """The table in Markdown below its title, then a line for each of `told`."""
    return f"{title}\n\n{markdown(head, rows)}\n" + "".join(f"- {line}\n" for line in told)


def shown(values: Sequence[float | None] | None, confidence: float) -> str:
    """A mean over seeds and half the width of its interval; how many seeds have a value where not all do."""
    if values is None:
        return ""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return f"- ({len(there)} of {len(values)})"
    found = mean_of(values, confidence)
    assert found is not None
    if found.high - found.low < 1e-9 * max(1.0, abs(found.value)):
        return f"{found.value:.4g}"
    return f"{found.value:.4g} ± {(found.high - found.low) / 2:.2g}"


def text(value: Any) -> str:
    """A setting as a cell shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _there(cell: Cell, name: str) -> bool:
    return name in cell.values and None not in cell.values[name]


def _same(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and isinstance(other, float) and math.isclose(one, other))
