"""The rows that need no network, in the form of any other run's results."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.run.results import Interval
from common.tables.intervals import accuracy_interval
from reckoning.audit import audit
from reckoning.config import TrainConfig
from reckoning.data import Splits
from reckoning.problems import Problem


def labels_of(splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> list[str]:
    """Labels of the task, from the configuration or else all that occur."""
    if config.data.labels:
        return list(config.data.labels)
    return sorted({q.answer for problems in splits.values() for problem in problems for q in problem.questions})


def shortcut_rows(splits: Splits, config: TrainConfig) -> tuple[dict[str, Interval], list[dict[str, Any]]]:
    """`accuracy_<rule>` with intervals for chance, majority, fixed rules and classifiers; predictions a question.

    Rules that learn see the training split alone. Chance is exact, its interval has no width.
    """
    asked = [(problem, question) for problem in splits["test"] for question in problem.questions]
    groups = [problem.theory for problem, _ in asked]
    metrics: dict[str, Interval] = {}
    records: list[dict[str, Any]] = [
        {"question": question.id, "theory": problem.theory, "depth": question.depth, "answer": question.answer}
        for problem, question in asked
    ]
    for rule in audit(splits["train"], splits["test"], labels_of(splits, config), seed=config.seed):
        correct = [said == question.answer for said, (_, question) in zip(rule.predictions, asked, strict=True)]
        interval = accuracy_interval(correct, groups, config.evaluation.confidence)
        if rule.name == "chance":
            interval = Interval(rule.accuracy, len(asked), rule.accuracy, rule.accuracy)
        metrics[f"accuracy_{rule.name}"] = interval
        for record, said in zip(records, rule.predictions, strict=True):
            record[rule.name] = said
    return metrics, records
