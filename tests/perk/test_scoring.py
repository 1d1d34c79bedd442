"""Responses become records, and records metrics: by kind, with intervals over contexts, and the rules' own rows."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from common.run.items import Item, score_of
from common.tables.intervals import share_interval
from perk import data
from perk.config import DataConfig, EvaluationConfig, MethodConfig, Target, Task, TemplateConfig
from perk.problems import Problem
from perk.scoring import score, shortcut_items, summarise, summarise_rules
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


def right(item: Item, metric: str = "accuracy") -> bool:
    return item.scores[metric] == (1, 1)


def test_an_item_says_what_was_said_and_by_which_metric_it_is_right() -> None:
    first, second, third, fourth = scored([[RIGHT, "garden"], ["kitchen"], ["office. hallway"]])
    scores, slices = dict.fromkeys(("accuracy", "exact", "label_match"), (1, 1)), {"kind": "qa1", "length": 64}
    more = {"answer": "hallway", "said": "The Hallway.", "response": RIGHT}
    assert first == Item("a/0", "a", scores, slices, more=more)
    assert (second.more["said"], right(second)) == ("", False), "its support is known and no answer follows it"
    assert (third.more["said"], right(third)) == ("", False)
    assert (fourth.more["said"], right(fourth)) == ("office. hallway", False) and right(fourth, "label_match"), (
        "nobody knows a support"
    )
    answers = scored([["hallway", "garden"], ["kitchen"], ["Garden"]], target=Target.answer, length=128, position="mid")
    assert [right(item) for item in answers] == [True, True, True, False]
    assert {(item.slices["length"], item.slices["position"]) for item in answers} == {(128, "mid")}
    assert Item.of(json.loads(json.dumps(first.to_json()))) == first


def test_documents_are_matched_within_longer_answers_and_have_no_labels() -> None:
    texts = [["in the hallway", "garden"], ["kitchen"], ["office"]]
    found = scored(texts, task=Task.documents, target=Target.answer)
    assert [item.scores for item in found[:2]] == [
        {"accuracy": (1, 1), "exact": (0, 1)},
        {"accuracy": (1, 1), "exact": (1, 1)},
    ]


def test_every_problem_and_question_needs_its_response() -> None:
    with pytest.raises(ValueError, match="zip"):
        scored([["a", "b"], ["c"]])
    with pytest.raises(ValueError, match="zip"):
        scored([["a"], ["c"], ["d"]])


def test_metrics_have_intervals_over_contexts_and_a_row_for_every_kind() -> None:
    items = scored([["hallway", "x"], ["kitchen"], ["office"]], target=Target.answer)
    found = summarise(items, EvaluationConfig())
    assert set(found) == {"accuracy", "exact", "label_match"}
    assert found["accuracy"] == share_interval([True, False, True, True], ["a", "a", "b", "c"], 0.95)
    assert found["accuracy"].value == score_of(items, "accuracy") == 0.75
    narrow, wide = (summarise(items, EvaluationConfig(confidence=each))["accuracy"] for each in (0.5, 0.99))
    assert narrow.low > wide.low
    mixed = [
        replace(
            item, slices={**item.slices, "kind": f"qa{1 + place % 2}"},
            scores={name: pair for name, pair in item.scores.items() if name != "label_match"},
        )
        for place, item in enumerate(items)
    ]  # fmt: skip
    found = summarise(mixed, EvaluationConfig())
    assert set(found) == {"accuracy", "accuracy@kind_qa1", "accuracy@kind_qa2", "exact"}
    assert (found["accuracy@kind_qa1"].value, found["accuracy@kind_qa2"].value) == (1.0, 0.5)


def test_rules_are_scored_on_every_test_question(small: Callable[..., Any]) -> None:
    config = small("babilong_qa1")
    splits = data.load(config)
    items = shortcut_items(splits["train"], splits["test"], config, length=64)
    metrics = summarise_rules(items, EvaluationConfig())
    assert {"accuracy_chance", "accuracy_constant"} <= set(metrics)
    assert len(items) == len(splits["test"])
    for name, interval in metrics.items():
        assert interval.value == pytest.approx(score_of(items, name)), name
    assert metrics["accuracy_chance"].low == metrics["accuracy_chance"].high
