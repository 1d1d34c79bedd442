"""Responses -> per-item records -> metrics with intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.run.results import Interval
from common.tables.intervals import accuracy_interval
from perk.audit import MOST, audit, matches_of
from perk.babilong.vocabulary import labels_of
from perk.config import DataConfig, MethodConfig, Task
from perk.metrics import exact_match, label_match
from perk.problems import Problem
from perk.templates import Templates


@dataclass(frozen=True)
class Item:
    """One question's outcome, a line of `predictions.jsonl`."""

    question: str
    context: str
    """What it hangs on: the group of its problem, or the problem; items with the same are not independent."""
    kind: str
    length: int
    """Tokens of the context as `data.length` counts them."""
    position: str | None
    """Where the gold document or the facts stand in this pass over the split; None where positions are not asked."""
    answer: str
    """The first accepted answer."""
    said: str
    """The answer found in the response."""
    correct: bool
    """By the paper's metric of the task."""
    exact: bool
    """Normalised exact match."""
    label_match: bool | None
    """BABILong's official metric, in a generated world over its own labels; None elsewhere."""
    response: str
    further: str | None = None
    """`length` or `position` where this pass changed it; such items count for that length or position alone."""


def score(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    data: DataConfig,
    method: MethodConfig,
    templates: Templates,
    *,
    length: int,
    position: str | None = None,
    further: str | None = None,
) -> list[Item]:
    """One item a question."""
    matches = matches_of(data.task)
    world = data.babilong.world if data.made else None
    labels = labels_of(data.babilong.task, world) if data.task is Task.babilong else ()
    items = []
    for problem, texts in zip(problems, responses, strict=True):
        for question, text in zip(problem.questions, texts, strict=True):
            said = templates.read(text, question, method.target)
            named = label_match(said, question.answers[0], question.text, labels) if labels else None
            right, exact = matches(said, question.answers), exact_match(said, question.answers)
            answer = question.answers[0]
            where = (question.id, problem.group or problem.id, question.kind, length, position)
            items.append(Item(*where, answer, said, right, exact, named, text, further))
    return items


def accuracy(items: Sequence[Item]) -> float:
    """Share of right answers."""
    return sum(item.correct for item in items) / len(items)


def accuracy_of(items: Sequence[Item], confidence: float) -> Interval:
    """Share of right answers with its interval; questions about one context hang together."""
    return accuracy_interval([item.correct for item in items], [item.context for item in items], confidence)


def summarise(items: Sequence[Item], confidence: float) -> dict[str, Interval]:
    """Accuracy in all and by kind of question, and the other metrics; questions about one context hang together."""

    def interval(chosen: Sequence[Item], values: Sequence[bool]) -> Interval:
        return accuracy_interval(values, [item.context for item in chosen], confidence)

    found = {"accuracy": interval(items, [item.correct for item in items])}
    kinds = sorted({item.kind for item in items})
    for kind in kinds if len(kinds) > 1 else ():
        chosen = [item for item in items if item.kind == kind]
        found[f"accuracy_kind_{kind}"] = interval(chosen, [item.correct for item in chosen])
    found["exact"] = interval(items, [item.exact for item in items])
    if all(item.label_match is not None for item in items):
        found["label_match"] = interval(items, [bool(item.label_match) for item in items])
    return found


def to_json(item: Item) -> dict[str, Any]:
    """The item as plain values."""
    return asdict(item)


def shortcut_rows(
    train: Sequence[Problem], test: Sequence[Problem], data: DataConfig, confidence: float
) -> tuple[dict[str, Interval], list[dict[str, Any]]]:
    """`accuracy_<rule>` for the rows that need no network, and the score of each, from 0 to 1, for every question; of
    the first `perk.audit.MOST` contexts."""
    rules = audit(train, test, data, confidence)
    asked = [(problem, question) for problem in test[:MOST] for question in problem.questions]
    records: list[dict[str, Any]] = [
        {"question": question.id, "context": problem.group or problem.id, "kind": question.kind,
         "answer": question.answers[0], **{rule.name: rule.right[place] for rule in rules}}
        for place, (problem, question) in enumerate(asked)
    ]  # fmt: skip
    return {f"accuracy_{rule.name}": rule.interval for rule in rules}, records
