"""Responses become records, and records metrics: by kind, with intervals over contexts, and the rules' own rows."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from common.tables.intervals import accuracy_interval
from perk import data
from perk.config import DataConfig, MethodConfig, Target, Task, TemplateConfig
from perk.problems import Problem
from perk.scoring import Item, accuracy, accuracy_of, score, shortcut_rows, summarise, to_json
from perk.templates import Templates
from tests.perk.miniature import problems, tokenizer

RIGHT = " <support> Mary went to the hallway. </support> <answer> The Hallway. </answer>"


def scored(
    texts: list[list[str]], given: list[Problem] | None = None, task: Task = Task.babilong, **more: Any
) -> list[Item]:
    templates = Templates(TemplateConfig(), tokenizer(), 100)
    method = MethodConfig(target=more.pop("target", Target.support))
    return score(
        given or problems(), texts, DataConfig(task=task), method, templates, length=more.pop("length", 64), **more
    )


def test_an_item_says_what_was_said_and_by_which_metric_it_is_right() -> None:
    first, second, third, fourth = scored([[RIGHT, "garden"], ["kitchen"], ["office. hallway"]])
    assert first == Item("a/0", "a", "qa1", 64, None, "hallway", "The Hallway.", True, True, True, RIGHT)
    assert (second.said, second.correct) == ("", False), "its support is known and no answer follows it"
    assert (third.said, third.correct) == ("", False)
    assert (fourth.said, fourth.correct, fourth.label_match) == ("office. hallway", False, True), (
        "nobody knows a support"
    )
    answers = scored([["hallway", "garden"], ["kitchen"], ["Garden"]], target=Target.answer, length=128, position="mid")
    assert [item.correct for item in answers] == [True, True, True, False]
    assert {(item.length, item.position) for item in answers} == {(128, "mid")}
    assert json.loads(json.dumps(to_json(first)))["said"] == "The Hallway."


def test_documents_are_matched_within_longer_answers_and_have_no_labels() -> None:
    texts = [["in the hallway", "garden"], ["kitchen"], ["office"]]
    found = scored(texts, task=Task.documents, target=Target.answer)
    assert [(item.correct, item.exact, item.label_match) for item in found[:2]] == [
        (True, False, None),
        (True, True, None),
    ]


def test_every_problem_and_question_needs_its_response() -> None:
    with pytest.raises(ValueError, match="zip"):
        scored([["a", "b"], ["c"]])
    with pytest.raises(ValueError, match="zip"):
        scored([["a"], ["c"], ["d"]])


def test_metrics_have_intervals_over_contexts_and_a_row_for_every_kind() -> None:
    items = scored([["hallway", "x"], ["kitchen"], ["office"]], target=Target.answer)
    found = summarise(items, 0.95)
    assert set(found) == {"accuracy", "exact", "label_match"}
    assert found["accuracy"] == accuracy_interval([True, False, True, True], ["a", "a", "b", "c"], 0.95)
    assert found["accuracy"] == accuracy_of(items, 0.95) and found["accuracy"].value == accuracy(items) == 0.75
    assert accuracy_of(items, 0.5).low > accuracy_of(items, 0.99).low
    mixed = [replace(item, kind=f"qa{1 + place % 2}", label_match=None) for place, item in enumerate(items)]
    found = summarise(mixed, 0.95)
    assert set(found) == {"accuracy", "accuracy_kind_qa1", "accuracy_kind_qa2", "exact"}
    assert (found["accuracy_kind_qa1"].value, found["accuracy_kind_qa2"].value) == (1.0, 0.5)


def test_rules_are_scored_on_every_test_question(small: Callable[..., Any]) -> None:
    config = small("babilong_qa1")
    splits = data.load(config)
    metrics, records = shortcut_rows(splits["train"], splits["test"], config, 0.95)
    assert {"accuracy_chance", "accuracy_constant"} <= set(metrics)
    assert len(records) == len(splits["test"])
    for name, interval in metrics.items():
        mean = sum(record[name.removeprefix("accuracy_")] for record in records) / len(records)
        assert interval.value == pytest.approx(mean), name
