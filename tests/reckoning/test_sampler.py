"""Facts in another order in every pass; the order of problems is tested in tests/common/run/test_batches.py."""

from common.run.batches import Batches
from reckoning.problems import Problem, Question
from reckoning.sampler import reshuffled


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
