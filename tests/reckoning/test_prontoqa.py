"""ProntoQA: the reader, and every real answer checked by following the classes."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.problems import Problem, Question
from reckoning.prontoqa import read_prontoqa
from tests.reckoning.miniature import write_lines

LINE: dict[str, Any] = {
    "id": "P1",
    "context": "Each yumpus is a dumpus. Dumpuses are not sour. Impuses are sour. Max is a yumpus.",
    "question": "Is the following statement true or false? Max is sour.",
    "options": ["A) True", "B) False"],
    "answer": "B",
    "explanation": [
        "Max is a yumpus.", "Each yumpus is a dumpus.", "Max is a dumpus.", "Dumpuses are not sour.", "Max is not sour."
    ],
}  # fmt: skip
LABELS = {"true": "yes", "false": "no"}


def test_a_question_with_its_proof_becomes_a_problem(tmp_path: Path) -> None:
    (read,) = read_prontoqa(write_lines(tmp_path / "p.jsonl", [LINE]), LABELS)
    assert read.facts == ("Each yumpus is a dumpus", "Dumpuses are not sour", "Impuses are sour", "Max is a yumpus")
    assert read.kinds == ("rule", "rule", "rule", "fact")
    assert read.questions == (Question("P1", "Max is sour", "false", (3, 0, 1), 2),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"explanation": None}, "explanation=None is not a list of sentences"),
        ({"explanation": [1]}, r"explanation=\[1\] is not a list of sentences"),
        ({"explanation": ["Rex is a yumpus."]}, "no step of the explanation stands in the context"),
        ({"context": ""}, "context holds no sentence"),
        ({"options": ["A) True", "B) Uncertain"]}, "unknown label 'uncertain'"),
        ({"id": "P1"}, "id 'P1' was used in line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", [LINE, {**LINE, "id": "P2", **change}])
    with pytest.raises(UserError, match=rf"p\.jsonl:2: {message}"):
        read_prontoqa(path, LABELS)


def said(sentence: str) -> tuple[str, bool, str]:
    """(subject, not negated, predicate) in the singular: `Dumpuses are not sour` -> (dumpus, False, sour)."""
    match = re.fullmatch(r"(?:Each |Every )?(\w+) (?:is|are) (not )?(?:an? )?(\w+)", sentence)
    assert match, sentence
    subject, negation, predicate = match.groups()
    single = (
        word.lower().removesuffix("es") if word.endswith("uses") else word.lower() for word in (subject, predicate)
    )
    first, last = single
    return first, negation is None, last


def truth(problem: Problem, facts: tuple[str, ...]) -> bool | None:
    """Whether the asked statement follows from `facts`, its negation does, or neither."""
    rules = [said(fact) for fact in facts]
    subject, positive, asked = said(problem.questions[0].text)
    known = {(subject, True)}
    while new := {(last, sign) for first, sign, last in rules if (first, True) in known} - known:
        known |= new
    if (asked, positive) in known:
        return True
    return False if (asked, not positive) in known else None


def test_all_real_questions_are_read_and_follow_from_their_relevant_sentences(data_root: Path) -> None:
    read = read_prontoqa(data_root / "prontoqa" / "prontoqa_5hop_part.jsonl.gz", LABELS)
    assert len(read) == len({problem.theory for problem in read}) == 300
    assert Counter(problem.questions[0].answer for problem in read) == {"true": 155, "false": 145}
    for problem in read:
        question = problem.questions[0]
        relevant = tuple(problem.facts[index] for index in question.relevant)
        assert (question.depth, len(relevant), problem.kinds.count("fact")) == (5, 6, 1)
        assert problem.kinds[question.relevant[0]] == "fact"
        for facts in (problem.facts, relevant):
            assert truth(problem, facts) is (question.answer == "true")
        for left_out in range(len(relevant)):
            assert truth(problem, relevant[:left_out] + relevant[left_out + 1 :]) is None, "all are needed"
