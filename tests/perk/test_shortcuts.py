"""What rules that look for words find."""

from typing import Any

import pytest

from perk.babilong.build import build
from perk.problems import Problem, Question
from perk.shortcuts import shortcuts_of
from perk.tokens import load

LARGE = ["data.babilong.world.persons=8", "data.babilong.world.places=10", "data.babilong.world.objects=6"]


def said(config: Any, problem: Problem, question: Question) -> dict[str, str]:
    return {rule.name: rule.answer(problem, question) for rule in shortcuts_of(config)}


def test_rules_know_the_words_of_a_generated_world_and_of_files_those_of_babi(small: Any) -> None:
    question = Question("q", "Where is Jeff?", ("cellar",), "qa1")
    problem = Problem("p", ("Jeff went to the cellar. It rained.", "Bill went to the park."), (question,), (), 9)
    places = {"last_label": "park", "first_label": "cellar", "frequent_label": "cellar", "last_beside_name": "cellar"}
    assert said(small("babilong_qa1", *LARGE), problem, question) == places
    assert set(said(small("babilong_qa1"), problem, question).values()) == {""}
    files = small("babilong_qa1", *LARGE, "data.files.train=x.txt")
    assert set(said(files, problem, question).values()) == {""}


def test_rules_know_the_things_of_a_generated_world(small: Any) -> None:
    question = Question("q", "What did Sandra give to Daniel?", ("lamp",), "qa5")
    problem = Problem("p", ("Sandra passed the lamp to Daniel.", "Julie got the milk."), (question,), (), 9)
    found = said(small("babilong_qa1", *LARGE, "data.babilong.task=5"), problem, question)
    assert (found["last_beside_name"], found["last_label"], found["first_label"]) == ("lamp", "milk", "lamp")
    where = Question("q", "Where is the lamp?", ("cinema",), "qa2")
    problem = Problem("p", ("Julie took the lamp there in the cinema.", "Bill is in the office."), (where,), (), 9)
    found = said(small("babilong_qa1", *LARGE, "data.babilong.task=2"), problem, where)
    assert (found["last_beside_name"], found["last_label"]) == ("cinema", "office")


@pytest.mark.parametrize("words", [[], LARGE])
def test_the_last_label_beside_a_name_answers_where_someone_is(small: Any, words: list[str]) -> None:
    config = small("babilong_qa1", *words)
    for problem in build(config, load("words", None))["train"]:
        (question,) = problem.questions
        assert said(config, problem, question)["last_beside_name"] == question.answers[0]
