"""Results of the engine benchmark, and the arithmetic on them."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-4
"""Relative difference up to which two outer gradients in single precision count as the same."""
MIB = 2**20


@dataclass(frozen=True)
class Result:
    """What one case gave; with an `error`, nothing else."""

    seconds: tuple[float, ...] = ()
    first: float = 0.0
    """Seconds of the first call, compilation included."""
    peak: int = 0
    """Resident bytes above model and libraries; on CUDA those allocated."""
    allocated: int = 0
    flops: int = 0
    """0: not counted (compiled)."""
    fast_bytes: int = 0
    """One copy of the fast weights of a task."""
    gradient: tuple[float, ...] = ()
    """Norm of the start weights' gradient, and its unit vector times a fixed random one."""
    rates: tuple[float, ...] = ()
    """The same of the learned rates; empty where they get no gradient."""
    error: str = ""

    @property
    def median(self) -> float:
        """Of the repeats, seconds."""
        return statistics.median(self.seconds) if self.seconds else math.nan


def read_result(text: str) -> Result:
    """From the last line that a case prints."""
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Result(**(found | lists))


def same_gradient(one: Result, other: Result) -> bool:
    """Whether two outer gradients agree to `TOLERANCE`; the rates' only where both have one (torchopt learns none)."""
    pairs = [(one.gradient, other.gradient)]
    pairs += [(one.rates, other.rates)] if one.rates and other.rates else []
    return all(a and b and _close(a, b) for a, b in pairs)


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    """The direction is compared absolutely: an error of relative size e moves its product by about e."""
    return abs(a[0] - b[0]) <= TOLERANCE * abs(b[0]) and abs(a[1] - b[1]) <= TOLERANCE


def ratio(value: float, reference: float) -> float | None:
    """None where there is nothing to divide, or by."""
    return value / reference if reference > 0 and math.isfinite(value) else None


def verdict(value: float, target: float) -> str:
    """Two decimals count, as printed."""
    return f"<= {target:.2f}: {'met' if round(value, 2) <= target else 'missed'}"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line with the least squared distance to the points (x, y)."""
    x, y = zip(*points, strict=True)
    return statistics.linear_regression(x, y).slope


def missing(labels: Sequence[str], results: Mapping[str, Result]) -> str:
    """Why a line cannot be computed from these cases; empty if it can."""
    lost = [label for label in labels if label not in results or results[label].error]
    return f"not computed, as there is no result of {'; '.join(lost)}" if lost else ""


def growth_note(name: str, labels: Sequence[tuple[int, str]], results: Mapping[str, Result], most: float | None) -> str:
    """Memory of one more inner step, in copies of the fast weights; labels with their numbers of steps."""
    if lost := missing([label for _, label in labels], results):
        return f"{name}: {lost}"
    found = [(count, results[label]) for count, label in labels]
    allocated = slope([(count, result.allocated) for count, result in found])
    resident = slope([(count, result.peak) for count, result in found])
    copies = allocated / found[0][1].fast_bytes
    target = "" if most is None else f"; target {verdict(copies, most)}"
    return (
        f"{name}: {allocated / MIB:+.1f} MiB allocated ({resident / MIB:+.1f} resident) an inner step, "
        f"{copies:.2f} copies of the fast weights{target}"
    )


def pair_note(label: str, other: str, results: Mapping[str, Result], most: float) -> str:
    """Time of one case in times of another."""
    if lost := missing([label, other], results):
        return f"{label}: {lost}"
    share = results[label].median / results[other].median
    return f"{label}: {share:.2f} of the time of {other}; target {verdict(share, most)}"


def truncation_notes(kept: Mapping[int, str], short: str, first_order: str, results: Mapping[str, Result]) -> list[str]:
    """Cost of a kept step, and of one that is not: K=8 less K=2, both with two kept, against first order's K=8."""
    notes = []
    if lost := missing(list(kept.values()), results):
        notes.append(f"a kept step: {lost}")
    else:
        found = [(keep, results[label]) for keep, label in kept.items()]
        memory = slope([(keep, result.allocated) for keep, result in found]) / MIB
        seconds = slope([(keep, result.median) for keep, result in found])
        notes.append(f"a kept step: {memory:+.1f} MiB allocated, {seconds:+.3f} s")
    if lost := missing([kept[2], short, first_order], results):
        return [*notes, f"a truncated step: {lost}"]
    cut = (results[kept[2]].median - results[short].median) / 6
    whole = results[first_order].median / 8
    note = f"a truncated step: {cut:.3f} s, {cut / whole:.2f} of a first-order one ({whole:.3f} s)"
    return [*notes, f"{note}; target {verdict(cut / whole, 1.15)}"]


def auto_notes(chosen: Mapping[float, str], fixed: Sequence[str], results: Mapping[str, Result]) -> list[str]:
    """`auto` at each budget in bytes against the fastest fixed choice whose peak fits it."""
    notes = []
    for budget, label in chosen.items():
        if lost := missing([label, *fixed], results):
            notes.append(f"{label}: {lost}")
            continue
        fitting = [name for name in fixed if results[name].peak <= budget]
        if not fitting:
            notes.append(f"{label}: no fixed choice fits")
            continue
        best = min(fitting, key=lambda name: results[name].median)
        over = "" if results[label].peak <= budget else f"; OVER its budget with {results[label].peak / 1e9:.2f} GB"
        notes.append(pair_note(label, best, results, 1.05) + over)
    return notes
