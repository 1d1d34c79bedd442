"""The order of problems: every pass holds each once, and any batch can be asked for at any time."""

from collections import Counter
from typing import Any

import pytest

from common.batches import Batches
from reckoning.problems import Problem, Question
from reckoning.sampler import reshuffled

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


def facts_of(problem: Problem) -> list[str]:
    return [problem.facts[index] for question in problem.questions for index in question.relevant]


def test_every_pass_may_give_the_facts_in_an_order_of_its_own() -> None:
    facts, kinds = tuple("abcdef"), ("fact", "rule") * 3
    questions = (Question("q", "?", "true", (4, 1)), Question("r", "?", "false", (0,)))
    problems = [Problem(str(index), str(index), facts, kinds, questions) for index in range(4)]
    batches = Batches(problems, 4, 0, reshuffled)
    drawn = [problem for number in range(6) for problem in batches[number]]
    assert len({problem.facts for problem in drawn}) > 20, "orders differ between passes and between problems"
    for problem in drawn:
        assert sorted(problem.facts) == sorted(facts)
        assert facts_of(problem) == ["e", "b", "a"], "what is recited, and in which order, stays"
        assert dict(zip(problem.facts, problem.kinds, strict=True)) == dict(zip(facts, kinds, strict=True))
    again = Batches(problems, 4, 0, reshuffled)
    assert [again[number] for number in reversed(range(6))] == [batches[number] for number in reversed(range(6))]
    assert [problem for number in range(3) for problem in Batches(problems, 4, seed=0)[number]] != drawn[:12]
