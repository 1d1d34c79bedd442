"""Random numbers that are functions of a key, an item and a draw alone, for many items at once.

A number is SplitMix64 (Steele, Lea and Flood 2014) of a counter, so nothing has to be drawn in order.
"""

import hashlib
from collections.abc import Callable, Iterable
from itertools import count

import numpy as np
from numpy.typing import NDArray

from common.data.splits import belongs
from common.errors import UserError

GAMMA = np.array([0x9E3779B97F4A7C15], np.uint64)
FIRST, SECOND = np.array([0xBF58476D1CE4E5B9], np.uint64), np.array([0x94D049BB133111EB], np.uint64)
MOST_ATTEMPTS = 400
"""At contents that fall to other splits; one in eight falls to a small split."""

Ints = NDArray[np.int64]


class Draws:
    """Draws of the items of one key, such as (seed, split, family, what is drawn)."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._start = np.frombuffer(digest[:8], np.uint64)

    def bits(self, items: Ints, draw: int | Ints = 0) -> NDArray[np.uint64]:
        """64 random bits for each pair of items and draws, which are broadcast."""
        of_item = _mixed(self._start + (items.astype(np.uint64) + np.uint64(1)) * GAMMA)
        return _mixed(of_item + (np.asarray(draw).astype(np.uint64) + np.uint64(1)) * GAMMA)

    def integers(self, items: Ints, below: int, draw: int | Ints = 0) -> Ints:
        """Uniform in 0 to below - 1, for items and draws as in `bits`."""
        upper = self.bits(items, draw) >> np.uint64(32)
        return ((upper * np.uint64(below)) >> np.uint64(32)).astype(np.int64)

    def floats(self, items: Ints, draw: int | Ints = 0) -> NDArray[np.float64]:
        """Uniform in [0, 1), for items and draws as in `bits`."""
        return (self.bits(items, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def kept(
    make: Callable[[Ints, int], Ints], content: Callable[[Ints], Iterable[str]], items: Ints, split: str, keys: str
) -> Ints:
    """The first of each item's contents that falls to `split`.

    Args:
        make: (items [n], attempt) -> contents [n, ...].
        content: contents [n, ...] -> n texts, of which `common.data.splits.belongs` says the split.
        items: which ones [n].
        split: train, dev or test.
        keys: with their values, what says how many contents there are: for the message.

    Raises:
        UserError: an item found none.
    """
    found = make(items, 0)
    rest = np.arange(len(items))
    for attempt in count(1):
        rest = rest[[not belongs(text, split) for text in content(found[rest])]]
        if not len(rest):
            return found
        if attempt > MOST_ATTEMPTS:
            break
        found[rest] = make(items[rest], attempt)
    raise UserError(f"{keys}: too few different contents, the {split} split finds none; use larger numbers")


def ringed(rows: Ints, moved: Ints | None = None) -> list[str]:
    """A text for each arrangement [n, places] of numbers, the same however it is moved.

    Args:
        rows: the arrangements.
        moved: for each motion, which place comes to each [motions, places]; by default those of a ring.
    """
    places = np.arange(rows.shape[1])
    moved = (places[:, None] + places) % rows.shape[1] if moved is None else moved
    powers = np.cumprod(np.broadcast_to(FIRST | np.uint64(1), places.shape), dtype=np.uint64)
    hashes = _mixed(((rows[:, moved].astype(np.uint64) + np.uint64(1)) * powers).sum(-1, dtype=np.uint64)).min(1)
    return [str(each) for each in hashes.tolist()]


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * FIRST
    x = (x ^ (x >> np.uint64(27))) * SECOND
    return x ^ (x >> np.uint64(31))
