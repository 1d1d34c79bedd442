"""SRC, the scene revisit consistency: how alike features of a place are when it is seen again.

Untrained features call any two frames alike (88 to 95 of 100 in a procedural world), so a value says nothing without
the floor, which unrelated true frames reach, and the ceiling, which true revisits reach.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST = 1e-3
"""Between floor and ceiling, in points of 100: below it the features tell nothing apart."""


@dataclass(frozen=True)
class Scale:
    """What a similarity is measured against, all times 100."""

    floor: float
    """Mean over true frames of different groups."""
    ceiling: float
    """Mean over true first and later visits: 100 where a path retraced shows the same pixels."""

    def rescaled(self, similarity: float | Array) -> float | Array:
        """0 at the floor, 100 at the ceiling."""
        return 100 * (similarity - self.floor) / (self.ceiling - self.floor)


def similarity(first: Array, later: Array) -> Array:
    """Cosine similarity times 100 of the features [n, d] of first visits and of later ones, [n].

    Raises:
        ValueError: shapes differ.
    """
    if first.shape != later.shape or first.ndim != 2:
        raise ValueError(f"features {first.shape} of first visits and {later.shape} of later ones: [n, d] of both")
    return 100 * (_unit(first) * _unit(later)).sum(1)


def floor_of(features: Array, groups: Sequence[Hashable]) -> float:
    """Mean cosine similarity times 100 over all pairs of frames of different groups.

    Args:
        features: [n, d], of true frames for a floor, of made ones for how alike a model draws what differs.
        groups: what must differ, such as which place of which episode a frame shows.

    Raises:
        ValueError: all frames are of one group.
    """
    rows = _unit(features)
    _, which = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    counts = np.bincount(which)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, which, rows)
    pairs = len(rows) ** 2 - (counts**2).sum()
    if not pairs:
        raise ValueError(f"{len(rows)} frames of one group: a floor needs frames of two")
    return float(100 * ((sums.sum(0) ** 2).sum() - (sums**2).sum()) / pairs)


def scale(features: Array, groups: Sequence[Hashable], first: Array, later: Array) -> Scale:
    """Floor and ceiling of true frames.

    Args:
        features: [n, d], with their `groups`: as for `floor_of`.
        groups: as for `floor_of`.
        first: [m, d], of true first visits.
        later: [m, d], of the true later visits of the same places.

    Raises:
        ValueError: the ceiling is no higher than the floor: these features tell no frames apart.
    """
    found = Scale(floor_of(features, groups), float(similarity(first, later).mean()))
    if found.ceiling < found.floor + LEAST:
        raise ValueError(
            f"true revisits score {found.ceiling:.2f}, unrelated frames {found.floor:.2f}: useless features"
        )
    return found


def _unit(features: Array) -> Array:
    rows = np.asarray(features, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
