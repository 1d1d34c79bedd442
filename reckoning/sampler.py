"""Training problems as each pass over them sees them."""

import random
from collections.abc import Sequence
from dataclasses import replace

from reckoning.problems import Problem


def reshuffled(problem: Problem, rng: random.Random) -> Problem:
    """The same problem with its facts in an order drawn from `rng`."""
    order = list(range(len(problem.facts)))
    rng.shuffle(order)
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
