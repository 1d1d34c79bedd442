"""Cells as a table: means over seeds with intervals, exponents beside the predicted ones, earlier measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.run.results import Interval
from fal.theorem.cells import Cell
from fal.theory_config import FitConfig, ReferenceConfig, TheoryConfig


@dataclass(frozen=True)
class Fit:
    """An exponent over the cells that all seeds have a value in."""

    config: FitConfig
    exponent: Interval | None
    """Mean over the seeds' own fits; None where fewer than two cells are left."""
    residual: float
    """Root mean square of log y around the line through the seeds' means."""
    cells: int
    where: Mapping[str, Any] = field(default_factory=dict)
    """Which cells they are; empty: all."""

    @property
    def name(self) -> str:
        """As in `results.json`."""
        return "_".join(["exponent", self.config.y, "on", self.config.x, *_words(self.where, "_")])


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


def add_times(cells: Sequence[Cell], config: TheoryConfig) -> None:
    """Of a table with `moments`, give every cell its losses there and at the end as `robust_at_time_<e t>`, too."""
    for cell in cells if config.moments else ():
        step, rounds = (
            cell.change.get(f"federated.{key}", getattr(config.federated, key)) for key in ("step", "rounds")
        )
        at = {moment: f"robust_at_{moment}" for moment in config.moments} | {rounds: "robust"}
        cell.values |= {f"robust_at_time_{step * moment:g}": cell.values[name] for moment, name in at.items()}


def fits_of(cells: Sequence[Cell], config: TheoryConfig) -> list[Fit]:
    """All exponents that a table asks for."""
    found = [fit(cells, each, config.confidence) for each in config.fits]
    return found + [fit(cells, each, config.confidence, each.where) for each in config.exponents]


def fit(cells: Sequence[Cell], config: FitConfig, confidence: float, where: Mapping[str, Any] | None = None) -> Fit:
    """The exponent of `config.y` on `config.x`, a number that was measured or the last word of a key that the cells
    change, over the cells that `where` tells of.
    """
    where = where or {}
    read = [(_numbers(cell, config.x), _numbers(cell, config.y)) for cell in cells if _is(cell, where)]
    used = [(x, y) for x, y in read if x and y and None not in x + y]
    x, y = (np.array([each[place] for each in used], dtype=float) for place in (0, 1))
    if len(used) and config.log_x and (x <= 0).any():
        keep = (x > 0).all(1)
        x, y = x[keep], y[keep]
    if len(x) < 2 or np.ptp(x[:, 0]) == 0:
        return Fit(config, None, math.nan, len(x), where)
    x, y = np.log(x) if config.log_x else x, np.log(y)
    slopes = [float(np.polyfit(x[:, run], y[:, run], 1)[0]) for run in range(x.shape[1])]
    x, y = x.mean(1), y.mean(1)
    left = y - np.polyval(np.polyfit(x, y, 1), x)
    return Fit(config, mean_of(slopes, confidence), float(np.sqrt((left**2).mean())), len(x), where)


def compared(cells: Sequence[Cell], config: ReferenceConfig, confidence: float) -> Compared:
    """The cell that `config.where` tells of."""
    for cell in cells:
        if _is(cell, config.where):
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


def summary(fits: Sequence[Fit], found: Sequence[Compared], note: str = "") -> list[str]:
    """Fits, what is to be said of them, and comparisons in words."""
    told = list[str]()
    for each in fits:
        y, x, exponent = each.config.y, each.config.x, each.exponent
        power = f"{y} ~ {x}^p" if each.config.log_x else f"log {y} ~ p {x}"
        power += f" ({', '.join(_words(each.where, '='))})" if each.where else ""
        if exponent is None:
            told.append(f"{power}: no fit, {each.cells} cell(s) have both")
            continue
        predicted = "" if each.config.predicted is None else f", predicted {each.config.predicted:.3g}"
        told.append(
            f"{power}: p = {exponent.value:.3f} ({exponent.low:.3f} to {exponent.high:.3f} over {exponent.count} "
            f"seeds){predicted}; residual {each.residual:.3f} over {each.cells} cells"
        )
    told += [note] if note else []
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


def _numbers(cell: Cell, name: str) -> list[float | None]:
    """A value of every run; none where the cell knows nothing of that name."""
    if name in cell.values:
        return cell.values[name]
    runs = len(next(iter(cell.values.values())))
    return [float(value) for key, value in cell.change.items() if key.rpartition(".")[2] == name for _ in range(runs)]


def _words(where: Mapping[str, Any], sign: str) -> list[str]:
    return [f"{key.rpartition('.')[2]}{sign}{text(value)}" for key, value in where.items()]


def _is(cell: Cell, where: Mapping[str, Any]) -> bool:
    return all(_same(cell.change.get(key), value) for key, value in where.items())


def _same(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and isinstance(other, float) and math.isclose(one, other))
