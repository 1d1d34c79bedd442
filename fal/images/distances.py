"""The two closest points of a set, all and of different classes: the separability that the theorem speaks of (1.3).

Distances come from products of matrices, block by block, so that any set takes the memory of one block; whatever the
rounding leaves in doubt is computed again in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2048
AGAIN = 4096
"""Pairs that are computed again at a time."""


@dataclass(frozen=True)
class Pair:
    """Two points."""

    distance: float
    """Euclidean; infinite where there is no such pair."""
    first: int
    second: int


def closest(x: Tensor, y: Tensor) -> tuple[Pair, Pair]:
    """The closest two of all points, and of all with different labels; of equally close ones the first.

    Args:
        x: points [items, ...], float.
        y: labels [items].
    """
    flat = x.reshape(len(x), -1)
    centred = (flat - flat.mean(0)).float()
    squares = centred.square().sum(1)
    # products of d numbers, each sum rounded at most d times, and two squares beside them
    doubt = 4 * flat.shape[1] * torch.finfo(torch.float32).eps * float(squares.max()) if len(x) else 0.0
    every, other = _Closest(flat, doubt), _Closest(flat, doubt)
    for top in range(0, len(x), BLOCK):
        rows = slice(top, top + BLOCK)
        for left in range(top, len(x), BLOCK):
            columns = slice(left, left + BLOCK)
            apart = torch.addmm(squares[columns][None], centred[rows], centred[columns].T, alpha=-2)
            apart += squares[rows][:, None]
            if top == left:
                apart.masked_fill_(torch.ones_like(apart, dtype=torch.bool).tril_(), torch.inf)
            every.look(apart, top, left)
            other.look(apart.masked_fill_(y[rows][:, None] == y[columns][None], torch.inf), top, left)
    return every.found, other.found


class _Closest:
    """The closest pair so far."""

    def __init__(self, flat: Tensor, doubt: float) -> None:
        self._flat, self._doubt = flat, doubt
        self.found = Pair(torch.inf, -1, -1)

    def look(self, apart: Tensor, top: int, left: int) -> None:
        """Take a block of squared distances, correct to `doubt`, whose first row and column have these numbers."""
        low, best = float(apart.min()), self.found.distance**2
        if low > best + self._doubt:
            return
        limit = min(best, low + self._doubt) + self._doubt
        places = ((apart <= limit) & apart.isfinite()).nonzero()
        for some in places.split(AGAIN):
            if self.found.distance == 0 or not len(some):
                return  # nothing is closer, and blocks come in order
            first, second = some[:, 0] + top, some[:, 1] + left
            exact = (self._flat[first].double() - self._flat[second].double()).norm(dim=1)
            at = int(exact.argmin())
            if float(exact[at]) < self.found.distance:
                self.found = Pair(float(exact[at]), int(first[at]), int(second[at]))
