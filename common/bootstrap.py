"""Intervals for means over seeds and for differences of two methods on the same items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPLICATES = 2000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """One run's test items, summed over what hangs together (a theory, a story).

    `parts` and `wholes` have shape (groups,): the score of a run is sum(parts) / sum(wholes), for an accuracy the right
    answers over all answers. Groups stand in the same order in every run that is compared.
    """

    groups: tuple[str, ...]
    parts: Array
    wholes: Array

    @property
    def value(self) -> float:
        """The run's score."""
        return float(self.parts.sum() / self.wholes.sum())


def replicates(runs: Sequence[Scores], *, draw: int = 0) -> Array:
    """Mean score over seeds, of (REPLICATES,) bootstrap samples of seeds and, within a seed, of groups.

    Equal numbers of seeds and groups and an equal `draw` give the same samples, so subtracting the replicates of two
    methods pairs them item by item.

    Args:
        runs: one for each seed, with equal groups.
        draw: number of an independent stream of samples.

    Raises:
        ValueError: runs with different groups.
    """
    if any(run.groups != runs[0].groups for run in runs):
        raise ValueError("the runs of one method have different test items")
    rng = np.random.default_rng([len(runs), len(runs[0].groups), draw])
    count = len(runs[0].groups)
    chosen = rng.integers(len(runs), size=(REPLICATES, len(runs)))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=(REPLICATES, len(runs))).astype(np.float64)
    total = np.zeros(REPLICATES)
    for place in range(len(runs)):
        parts = np.stack([run.parts for run in runs])[chosen[:, place]]
        wholes = np.stack([run.wholes for run in runs])[chosen[:, place]]
        drawn = weights[:, place]
        whole = (drawn * wholes).sum(1)
        total += np.divide((drawn * parts).sum(1), whole, out=np.zeros(REPLICATES), where=whole > 0)
    return total / len(runs)


def interval(samples: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Percentiles that hold `confidence` of the replicates."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
