"""Which problems stand in which batch: a function of the seed and the batch's number, so a restart needs no state."""

import random
from collections.abc import Sequence
from functools import lru_cache

from reckoning.problems import Problem


class Batches:
    """An endless sequence of batches; every pass over the problems has an order of its own."""

    def __init__(self, problems: Sequence[Problem], size: int, seed: int) -> None:
        """`size` problems a batch; a batch may reach from the end of one pass into the next."""
        self.problems, self.size, self.seed = problems, size, seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self.problems)))
        random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return order

    def __getitem__(self, number: int) -> list[Problem]:
        """Batch `number`, counted from 0."""
        places = (divmod(number * self.size + i, len(self.problems)) for i in range(self.size))
        return [self.problems[self._order(epoch)[place]] for epoch, place in places]
