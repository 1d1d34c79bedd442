"""Responses become per-item records and metrics that anybody can recount."""

import json
from collections.abc import Sequence

import pytest

from common.tables.intervals import accuracy_interval
from reckoning.problems import Problem, Question
from reckoning.scoring import Item, accuracy, score, summarise, to_json

WORDS = {"true": "yes", "false": "no", "unknown": "none"}
FACTS = ("Anne is kind", "Bob is red", "If someone is kind then they are big")
PROBLEMS = [
    Problem(
        "p1",
        "t1",
        FACTS,
        (),
        (Question("a", "Anne is big", "true", (0, 2), 1), Question("b", "Anne is not kind", "false", (0,), 0)),
    ),
    Problem("p2", "t2", FACTS, (), (Question("c", "Bob is big", "unknown", (2,), 1),)),
    Problem("p3", "t3", FACTS, (), (Question("d", "Bob is young", "unknown"),)),
]
RESPONSES = [
    ["yes because Anne is kind,If someone is kind then they are big", "Yes because Anne is kind,Bob"],
    ["none because"],
    ["none because Bob is red"],
]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return score(PROBLEMS, RESPONSES, WORDS, recited=True)


def test_every_question_has_one_record_in_order(items: Sequence[Item]) -> None:
    assert [(i.question, i.theory, i.depth, i.answer, i.said, i.correct) for i in items] == [
        ("a", "t1", 1, "yes", "yes", True),
        ("b", "t1", 0, "no", "Yes", False),
        ("c", "t2", 1, "none", "none", True),
        ("d", "t3", None, "none", "none", True),
    ]
    assert [item.response for item in items] == [text for texts in RESPONSES for text in texts]


def test_recall_is_none_where_no_fact_is_known_to_matter_or_none_was_to_be_recited(items: Sequence[Item]) -> None:
    assert [item.recall is None for item in items] == [False, False, False, True]
    assert all(item.recall is None for item in score(PROBLEMS, RESPONSES, WORDS))


def test_an_answer_counts_in_its_normal_form() -> None:
    problem = Problem("p", "t", FACTS, (), (Question("q", "Who is Bob?", "Son-in-law"),))
    assert score([problem], [["son-in-law."]], {})[0].correct
    assert not score([problem], [["son"]], {})[0].correct


def test_an_answer_of_several_words_can_be_right() -> None:
    problem = Problem("p", "t", FACTS, (), (Question("q", "Where is Bob?", "New York"),))
    assert score([problem], [["New York"]], {})[0].correct
    assert score([problem], [["New York because Bob is red"]], {})[0].correct
    assert not score([problem], [["New"]], {})[0].correct


def test_metrics_are_shares_in_all_per_class_and_per_depth(items: Sequence[Item]) -> None:
    metrics = summarise(items, 0.95)
    shown = {name: (interval.value, interval.count) for name, interval in metrics.items() if "recall" not in name}
    assert shown == {
        "accuracy": (0.75, 4),
        "accuracy_no": (0.0, 1),
        "accuracy_none": (1.0, 2),
        "accuracy_yes": (1.0, 1),
        "accuracy_depth_0": (0.0, 1),
        "accuracy_depth_1": (1.0, 2),
    }
    assert accuracy(items) == 0.75


def test_the_authors_recall_is_pooled_over_the_set_and_ours_is_a_mean_over_questions(items: Sequence[Item]) -> None:
    metrics = summarise(items, 0.95)
    # pieces: two that match; one that matches and "Bob", which is no part of "Anne is kind"; none at all
    assert (metrics["recall_published"].value, metrics["recall_published"].count) == (3 / 4, 4)
    assert (metrics["recall_exact"].value, metrics["recall_exact"].count) == (pytest.approx(1 / 3), 3)
    assert metrics["recall_precision"].value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert metrics["recall_recall"].value == pytest.approx((1 + 1 + 0) / 3)


def test_reciting_nothing_at_all_is_a_recall_of_zero() -> None:
    metrics = summarise(score(PROBLEMS, [["yes", "no"], ["none"], ["none"]], WORDS, recited=True), 0.95)
    assert metrics["recall_published"].value == metrics["recall_recall"].value == metrics["recall_exact"].value == 0


def test_intervals_know_that_questions_of_one_theory_hang_together(items: Sequence[Item]) -> None:
    interval = summarise(items, 0.99)["accuracy"]
    assert interval == accuracy_interval([True, False, True, True], ["t1", "t1", "t2", "t3"], 0.99)


def test_a_record_is_plain_json(items: Sequence[Item]) -> None:
    record = json.loads(json.dumps(to_json(items[0])))
    assert record["recall"] == {"pieces": 2, "matching": 2, "precision": 1.0, "recall": 1.0, "exact": True}
