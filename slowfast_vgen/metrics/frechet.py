"""Frechet distance between the features of two sets of clips, with its value without each group of clips.

    |m_r - m_g|^2 + tr(S_r) + tr(S_g) - 2 tr((S_r S_g)^(1/2))

of means m and covariances S. Means and covariances without a group follow from sums that the group's rows are taken
out of, so every group costs two eigendecompositions of [width, width], however many clips there are.
"""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.run.items import OfAll

Array = NDArray[np.float64]
ENOUGH = 10
"""Clips for each feature: with fewer the distance of two halves of one set is already large."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """Sums over rows of features [n, d] that lie around a fixed origin."""

    count: int
    sums: Array
    """[d]"""
    products: Array
    """[d, d]: the sum of x x'."""

    @classmethod
    def of(cls, rows: Array) -> "Moments":
        """Those of `rows` [n, d]."""
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.count - other.count, self.sums - other.sums, self.products - other.products)

    @property
    def mean(self) -> Array:
        """[d]"""
        return self.sums / self.count

    @property
    def covariance(self) -> Array:
        """[d, d], with n - 1 in the denominator."""
        found: Array = (self.products - np.outer(self.sums, self.mean)) / (self.count - 1)
        return found


def frechet(real: Array, made: Array, groups: Sequence[Hashable]) -> OfAll:
    """The distance of made clips from as many real ones, and by group the distance without its clips.

    Args:
        real: features [n, d] of real clips.
        made: features [n, d]; row i belongs to what row i of `real` belongs to.
        groups: of every row (its episode); a group leaves both sets at once.

    Raises:
        ValueError: not as many clips on both sides, or groups whose rest has fewer than two clips.
    """
    if real.shape != made.shape or real.ndim != 2 or len(groups) != len(real):
        raise ValueError(
            f"features {real.shape} of real clips and {made.shape} of made ones in {len(groups)} groups: the distance "
            "grows as clips get fewer, so both sides need equally many"
        )
    count, width = real.shape
    if count < ENOUGH * width:
        log.warning("Frechet distance of %d clips: with %d features it needs %d", count, width, ENOUGH * width)
    origin = real.mean(0)  # keeps the differences of large sums exact
    sides = [np.asarray(side, np.float64) - origin for side in (real, made)]
    wholes = [Moments.of(side) for side in sides]
    names = np.array([str(group) for group in groups])
    without = {}
    for name in dict.fromkeys(names.tolist()):
        rest = [whole - Moments.of(side[names == name]) for whole, side in zip(wholes, sides, strict=True)]
        if rest[0].count < 2:
            raise ValueError(f"group {name} has {count - rest[0].count} of {count} clips: two must be left without it")
        without[name] = distance(*rest)
    return OfAll(distance(*wholes), without)


def distance(first: Moments, second: Moments) -> float:
    """The Frechet distance of two normal distributions with these moments."""
    apart = float(((first.mean - second.mean) ** 2).sum())
    spread, other = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0))  # spread = root root', so the products below share eigenvalues
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ other @ root), 0)).sum()
    return max(0.0, apart + float(np.trace(spread) + np.trace(other) - 2 * shared))  # rounding goes below
