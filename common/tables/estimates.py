"""Means over seeds, and sums and differences of them over the same test items, with their intervals.

Two things vary: the test items, in groups that hang together, which all runs share, and the seeds of training. The
variance of the first is that of a ratio over groups, of the second s^2 / seeds; an interval is Student's with the
degrees of freedom of Welch and Satterthwaite. Where a seed is the same data and start for every row, a difference is
one of pairs, and s^2 is that of the seeds' own differences. A bootstrap over seeds tends to the same with many of them,
but with three that differ much its interval of 95 % leaves out the true difference in 18 % of cases (docs/log.md).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import stdev
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """One run's test items, summed over what hangs together (a theory, a story).

    `parts` and `wholes` have shape (groups,): the score of a run is sum(parts) / sum(wholes), for an accuracy the right
    answers over all answers.
    """

    groups: tuple[str, ...]
    parts: Array
    wholes: Array

    @classmethod
    def of(cls, items: Iterable[tuple[str, float, float]]) -> "Scores":
        """Items as (group, part, whole), summed by group; groups without a whole are left out."""
        sums: dict[str, list[float]] = {}
        for group, part, whole in items:
            entry = sums.setdefault(group, [0.0, 0.0])
            entry[0] += part
            entry[1] += whole
        groups = tuple(sorted(name for name, (_, whole) in sums.items() if whole > 0))
        return cls(groups, np.array([sums[g][0] for g in groups]), np.array([sums[g][1] for g in groups]))

    @property
    def value(self) -> float:
        """The run's score."""
        return float(self.parts.sum() / self.wholes.sum())

    @property
    def moves(self) -> Array:
        """How far each group moves the score, shape (groups,)."""
        found: Array = (self.parts - self.value * self.wholes) / self.wholes.sum()
        return found


@dataclass(frozen=True)
class Jackknife:
    """One run's number that only all items together have, by leaving one group out; of a mean it says what `Scores` do.

    `without` has shape (groups,): the number without the items of each group.
    """

    groups: tuple[str, ...]
    value: float
    without: Array
    count: float | None = None
    """Of a share: of how many independent items it is one."""

    @classmethod
    def of(cls, value: float, without: Mapping[str, float], count: float | None = None) -> "Jackknife":
        """The number of all, by group the number without it, and of a share how many items it is one of."""
        groups = tuple(sorted(without))
        return cls(groups, value, np.array([without[group] for group in groups]), count)

    @property
    def moves(self) -> Array:
        """How far each group moves the number, shape (groups,): its pseudo-value n value - (n - 1) without, less the
        mean of them, over n. Their squares times n / (n - 1) add up to the jackknife's variance.
        """
        count = len(self.groups)
        found: Array = (count - 1) / count * (self.without.mean() - self.without)
        return found


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, or a sum or difference of such, with what its errors come from.

    Equal names of groups are the same items and equal names of runs the same runs, in whatever estimates they stand:
    what two estimates have in common cancels in their difference.
    """

    value: float
    items: Mapping[str, float] = field(default_factory=dict)
    """By group, how far it moves the value (its influence); their squares add up to the variance from the items."""
    groups: float = inf
    """Number of groups, the least of all parts."""
    runs: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """By name, the standard error of the runs' mean, negative where they are subtracted, and their number."""
    seeds: Mapping[int, float] = field(default_factory=dict)
    """Of paired runs in place of that: by seed, how far it moves the value; their squares add up to the variance."""

    def __add__(self, other: Self) -> "Estimate":
        return self._joined(other, 1.0)

    def __sub__(self, other: Self) -> "Estimate":
        return self._joined(other, -1.0)

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(0.0)._joined(self, factor)

    def _joined(self, other: "Estimate", factor: float) -> "Estimate":
        items, runs, seeds = dict(self.items), dict(self.runs), dict(self.seeds)
        for group, influence in other.items.items():
            items[group] = items.get(group, 0.0) + factor * influence
        for name, (error, count) in other.runs.items():
            runs[name] = (runs.get(name, (0.0, count))[0] + factor * error, count)
        for seed, influence in other.seeds.items():
            seeds[seed] = seeds.get(seed, 0.0) + factor * influence
        return Estimate(self.value + factor * other.value, items, min(self.groups, other.groups), runs, seeds)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's interval; without width where nothing varies, without end where a single group speaks for all."""
        from scipy.special import stdtrit

        if self.groups < 2:
            return -inf, inf

        parts = [(sum(influence**2 for influence in self.items.values()), self.groups - 1)]
        parts += [(error**2, count - 1) for error, count in self.runs.values()]
        parts += [(sum(influence**2 for influence in self.seeds.values()), len(self.seeds) - 1)] if self.seeds else []
        variance = sum(part for part, _ in parts)
        if variance == 0:
            return self.value, self.value
        shares = sum(part**2 / freedom for part, freedom in parts if part)
        freedom = variance**2 / shares if shares else inf
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * variance**0.5
        return self.value - half, self.value + half


def over_items(
    name: str, runs: Sequence[Scores | Jackknife], *, items: str = "", paired: Sequence[int] = ()
) -> Estimate:
    """Mean score of one method's runs, which differ in the seed.

    Args:
        name: of these runs.
        runs: one for each seed. One alone says nothing about seeds: its interval is of the items.
        items: which test items these are; equal groups of two sets of items are not the same.
        paired: their seeds, where equal seeds of two methods make a pair.
    """
    influence: dict[str, float] = defaultdict(float)
    for run in runs:
        for group, move in zip(run.groups, (run.moves / len(runs)).tolist(), strict=True):
            influence[group] += move
    count = len(influence)
    own = {f"{items}/{group}": move * (count / max(count - 1, 1)) ** 0.5 for group, move in influence.items()}
    whole = over_values(name, [run.value for run in runs], paired=paired)
    return Estimate(whole.value, own, count, whole.runs, whole.seeds)


def over_values(name: str, values: Sequence[float], within: float = 0.0, *, paired: Sequence[int] = ()) -> Estimate:
    """Mean of numbers that are not counted from items, such as times, one a run.

    Args:
        name: of these runs.
        values: shape (runs,).
        within: standard error of the value of a single run, which alone says nothing about the spread of runs.
        paired: as in `over_items`.
    """
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Estimate(mean, {name: within})
    if paired:
        scale = (count * (count - 1)) ** 0.5
        return Estimate(mean, seeds={seed: (each - mean) / scale for seed, each in zip(paired, values, strict=True)})
    return Estimate(mean, runs={name: (stdev(values) / count**0.5, count)})
