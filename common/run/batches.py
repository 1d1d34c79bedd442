"""Which items stand in which batch: a function of the seed and the batch's number, so a restart needs no state."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """An endless sequence of batches; every pass over the items has an order of its own."""

    def __init__(
        self, items: Sequence[T], size: int, seed: int, fresh: Callable[[T, random.Random], T] | None = None
    ) -> None:
        """`size` items a batch; a batch may reach from the end of one pass into the next.

        `fresh` gives an item as a pass sees it, by random numbers that belong to item and pass.
        """
        self.items, self.size, self.seed, self.fresh = items, size, seed, fresh
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self.items)))
        random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return order

    def __getitem__(self, number: int) -> list[T]:
        """Batch `number`, counted from 0."""
        places = (divmod(number * self.size + i, len(self.items)) for i in range(self.size))
        return [self._item(epoch, self._order(epoch)[place]) for epoch, place in places]

    def of(self, step: int, parts: int = 1) -> Iterator[list[T]]:
        """The `parts` batches of outer step `step`, counted from 1, each made when it is asked for."""
        return (self[number] for number in range((step - 1) * parts, step * parts))

    def _item(self, epoch: int, index: int) -> T:
        item = self.items[index]
        return self.fresh(item, random.Random(f"{self.seed}/facts/{epoch}/{index}")) if self.fresh else item
