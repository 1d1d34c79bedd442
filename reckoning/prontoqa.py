"""Reader of ProntoQA: invented classes, one named individual, a proof of every answer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.choices import read_choices
from reckoning.problems import Problem, without_full_stop


def read_prontoqa(path: Path, labels: Mapping[str, str] | None = None) -> list[Problem]:
    """One problem a line, in the order of the file: read as `reckoning.choices` does, with `explanation`.

    The steps of the explanation that stand in the context are the relevant sentences, in the order of the proof; the
    others are what follows from them. Depth is the number of rules among them. The sentence about the individual that
    the question asks about is a fact, all others are rules.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    problems = read_choices(path, labels=labels)
    lines = read_json_lines(path, own=False)
    return [
        _explained(problem, record, f"{path}:{number}")
        for problem, (number, record) in zip(problems, lines, strict=True)
    ]


def _explained(problem: Problem, record: dict[str, Any], where: str) -> Problem:
    steps = record.get("explanation")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise UserError(f"{where}: explanation={steps!r} is not a list of sentences; copy the proof of the release")
    said = dict.fromkeys(map(without_full_stop, steps))
    relevant = tuple(problem.facts.index(step) for step in said if step in problem.facts)
    if not relevant:
        raise UserError(f"{where}: no step of the explanation stands in the context; the line is damaged, remove it")
    question = problem.questions[0]
    subject = question.text.split()[0]
    kinds = tuple("fact" if fact.split()[0] == subject else "rule" for fact in problem.facts)
    rules = sum(kinds[index] == "rule" for index in relevant)
    return replace(problem, kinds=kinds, questions=(replace(question, relevant=relevant, depth=rules),))
