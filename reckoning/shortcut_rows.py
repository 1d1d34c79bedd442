"""The rows that need no network, in the form of any other run's results."""

from collections.abc import Mapping, Sequence

from common.run.items import Item
from common.run.results import Interval
from common.tables.summary import summarise
from reckoning.audit import CHANCE, audit
from reckoning.config import TrainConfig
from reckoning.problems import Problem
from reckoning.scoring import slices_of


def labels_of(splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> list[str]:
    """Labels of the task, from the configuration or else all that occur."""
    if config.data.labels:
        return list(config.data.labels)
    return sorted({q.answer for problems in splits.values() for problem in problems for q in problem.questions})


def shortcut_rows(
    splits: Mapping[str, Sequence[Problem]], config: TrainConfig
) -> tuple[dict[str, Interval], list[Item]]:
    """`accuracy_<rule>` with intervals for chance, majority, fixed rules and classifiers, and an item a question.

    Rules that learn see the training split alone. Chance is exact: its interval has no width, and no item has it.
    """
    asked = [(problem, question) for problem in splits["test"] for question in problem.questions]
    words = config.data.labels or {}
    rules = audit(splits["train"], splits["test"], labels_of(splits, config), seed=config.seed)
    items = []
    for place, (problem, question) in enumerate(asked):
        scores = {
            f"accuracy_{rule.name}": (int(rule.predictions[place] == question.answer), 1)
            for rule in rules
            if rule.name != CHANCE
        }
        slices = slices_of(question, words.get(question.answer, question.answer))
        items.append(Item(question.id, problem.theory, scores, slices))
    chance = {
        f"accuracy_{rule.name}": Interval(rule.accuracy, len(asked), rule.accuracy, rule.accuracy)
        for rule in rules
        if rule.name == CHANCE
    }
    return chance | summarise(items, config.evaluation.confidence, by={}), items
