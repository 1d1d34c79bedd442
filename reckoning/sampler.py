"""Which problems stand in which batch: a function of the seed and the batch's number, so a restart needs no state."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from reckoning.problems import Problem


class Batches:
    """An endless sequence of batches; every pass over the problems has an order of its own."""

    def __init__(self, problems: Sequence[Problem], size: int, seed: int, *, reshuffle: bool = False) -> None:
        """`size` problems a batch; a batch may reach from the end of one pass into the next.

        `reshuffle`: every pass gives the facts of a problem in an order of its own.
        """
        self.problems, self.size, self.seed, self.reshuffle = problems, size, seed, reshuffle
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self.problems)))
        random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
        return order

    def __getitem__(self, number: int) -> list[Problem]:
        """Batch `number`, counted from 0."""
        places = (divmod(number * self.size + i, len(self.problems)) for i in range(self.size))
        return [self._problem(epoch, self._order(epoch)[place]) for epoch, place in places]

    def _problem(self, epoch: int, index: int) -> Problem:
        problem = self.problems[index]
        if not self.reshuffle:
            return problem
        order = list(range(len(problem.facts)))
        random.Random(f"{self.seed}/facts/{epoch}/{index}").shuffle(order)
        return reordered(problem, order)


def reordered(problem: Problem, order: Sequence[int]) -> Problem:
    """The same problem with its facts in another order: fact `order[i]` comes at place i."""
    place = {before: after for after, before in enumerate(order)}
    return replace(
        problem,
        facts=tuple(problem.facts[index] for index in order),
        kinds=tuple(problem.kinds[index] for index in order) if problem.kinds else (),
        questions=tuple(
            replace(question, relevant=tuple(place[index] for index in question.relevant))
            for question in problem.questions
        ),
    )
