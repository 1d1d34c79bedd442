"""What a case of a benchmark gave, and the arithmetic that all benchmarks share."""

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
    """Norm of the start weights' gradient (in reading, of their change), and its unit vector times a fixed random one.
    """
    rates: tuple[float, ...] = ()
    """The same of the learned rates and of what else learns; empty where they get no gradient."""
    question: float = 0.0
    """Seconds of a question, where what is timed is reading."""
    kept: int = 0
    """Bytes that reading leaves behind."""
    beside: tuple[float, ...] = ()
    """Seconds of the reference, run in turn with this case in one process."""
    other: tuple[float, ...] = ()
    """Where one of two ways is chosen: how many times as fast as the reference the other one is, in each turn."""
    stacked: bool = False
    """Which of them is chosen."""
    difference: float = 0.0
    """Largest entry by which what came out differs from the reference's."""
    resident: int = 0
    """Bytes of the whole process at most."""
    robust: float = 0.0
    """Share of images classified right under attack, where what is timed is the attack."""
    error: str = ""

    @property
    def median(self) -> float:
        """Of the repeats, seconds."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def times_as_fast(self) -> float:
        """As the reference beside it, the median of all turns."""
        return statistics.median(b / own for own, b in zip(self.seconds, self.beside, strict=True))


def to_result(found: Mapping[str, Any]) -> Result:
    """From what a case measured; lists become tuples."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return Result(**values)


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
