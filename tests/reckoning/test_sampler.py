"""The order of problems: every pass holds each once, and any batch can be asked for at any time."""

from collections import Counter
from typing import Any

import pytest

from reckoning.sampler import Batches

PROBLEMS: list[Any] = list(range(7))  # whatever is numbered will do


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_every_pass_holds_each_problem_once(size: int) -> None:
    batches = Batches(PROBLEMS, size, seed=0)
    drawn = [problem for number in range(7 * 3) for problem in batches[number]]
    assert all(len(batches[number]) == size for number in range(5))
    for start in range(0, len(drawn), 7):
        assert sorted(drawn[start : start + 7]) == PROBLEMS


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    forward, backward = Batches(PROBLEMS, 3, seed=5), Batches(PROBLEMS, 3, seed=5)
    there = [forward[number] for number in range(20)]
    back = [backward[number] for number in reversed(range(20))]
    assert there == back[::-1]


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = Counter(tuple(Batches(PROBLEMS, 7, seed)[number]) for seed in range(4) for number in range(5))
    assert len(orders) > 15
