"""Responses become per-item records and metrics that anybody can recount."""

import json
from collections.abc import Sequence

import pytest

from common.run.items import Item, score_of
from common.tables.intervals import share_interval
from reckoning.problems import Problem, Question
from reckoning.scoring import score, summarise

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
    assert [(i.id, i.group, i.slices, i.more["said"], i.scores["accuracy"]) for i in items] == [
        ("a", "t1", {"answer": "yes", "depth": 1}, "yes", (1, 1)),
        ("b", "t1", {"answer": "no", "depth": 0}, "Yes", (0, 1)),
        ("c", "t2", {"answer": "none", "depth": 1}, "none", (1, 1)),
        ("d", "t3", {"answer": "none"}, "none", (1, 1)),
    ]
    assert [item.more["response"] for item in items] == [text for texts in RESPONSES for text in texts]


def test_recall_is_none_where_no_fact_is_known_to_matter_or_none_was_to_be_recited(items: Sequence[Item]) -> None:
    assert ["recall_exact" in item.scores for item in items] == [True, True, True, False]
    assert all(set(item.scores) == {"accuracy"} for item in score(PROBLEMS, RESPONSES, WORDS))


def right(items: Sequence[Item]) -> bool:
    return score_of(items, "accuracy") == 1


def test_an_answer_counts_in_its_normal_form() -> None:
    problem = Problem("p", "t", FACTS, (), (Question("q", "Who is Bob?", "Son-in-law"),))
    assert right(score([problem], [["son-in-law."]], {}))
    assert not right(score([problem], [["son"]], {}))


def test_an_answer_of_several_words_can_be_right() -> None:
    problem = Problem("p", "t", FACTS, (), (Question("q", "Where is Bob?", "New York"),))
    assert right(score([problem], [["New York"]], {}))
    assert right(score([problem], [["New York because Bob is red"]], {}))
    assert not right(score([problem], [["New"]], {}))


def test_metrics_are_shares_in_all_per_class_and_per_depth(items: Sequence[Item]) -> None:
    metrics = summarise(items, 0.95)
    shown = {name: (interval.value, interval.count) for name, interval in metrics.items() if "recall" not in name}
    assert shown == {
        "accuracy": (0.75, 4),
        "accuracy@answer_no": (0.0, 1),
        "accuracy@answer_none": (1.0, 2),
        "accuracy@answer_yes": (1.0, 1),
        "accuracy@depth_0": (0.0, 1),
        "accuracy@depth_1": (1.0, 2),
    }
    assert score_of(items, "accuracy") == 0.75


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
    assert interval == share_interval([True, False, True, True], ["t1", "t1", "t2", "t3"], 0.99)


def test_a_record_is_plain_json(items: Sequence[Item]) -> None:
    record = json.loads(json.dumps(items[0].to_json()))
    assert Item.of(record) == items[0]
    assert (record["scores"]["recall_published"], record["scores"]["recall_exact"]) == ([2, 2], [1, 1])
