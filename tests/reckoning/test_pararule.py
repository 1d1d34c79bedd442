"""PARARULE-Plus: the reader, the real counts, and that polarity alone answers all of it."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from reckoning.pararule import read_pararule
from reckoning.problems import Question
from tests.reckoning.miniature import write_lines

ASKED: dict[str, Any] = {"id": "D2-11", "text": "The lion is big.", "label": "true", "meta": {"QDep": "2", "QCat": "0"}}
LINE: dict[str, Any] = {
    "id": "D2-1",
    "context": "The lion is strong. All strong animals are tall. Tall animals are big.",
    "questions": [ASKED, {**ASKED, "id": "D2-12", "text": "The lion is not big.", "label": "false"}],
}
LABELS = {"true": "yes", "false": "no"}
FILES = {  # the counts of the data's own list
    "depth2_dev": (1796, 16204),
    "depth3_dev": (1796, 16154),
    "depth4_dev": (1796, 16150),
    "depth5_test_part": (150, 1346),
}


def test_a_theory_becomes_a_problem_with_all_its_questions(tmp_path: Path) -> None:
    (read,) = read_pararule(write_lines(tmp_path / "p.jsonl", [LINE]), LABELS)
    assert read.facts == ("The lion is strong", "All strong animals are tall", "Tall animals are big")
    assert read.kinds == ("fact", "rule", "rule")
    assert read.questions == (
        Question("D2-11", "The lion is big", "true", (), 2),
        Question("D2-12", "The lion is not big", "false", (), 2),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": ""}, "0 sentences, 2 questions; remove the line"),
        ({"questions": []}, "3 sentences, 0 questions; remove the line"),
        ({"questions": {}}, r"questions=\{\} is not a list"),
        ({"questions": [3]}, r"questions\[0\]=3 is not an object"),
        ({"questions": [{**ASKED, "text": "."}]}, r"questions\[0\]: text is empty"),
        ({"questions": [{**ASKED, "label": "perhaps"}]}, r"questions\[0\]: unknown label 'perhaps'"),
        ({"questions": [{**ASKED, "meta": {}}]}, r"questions\[0\]: meta\.QDep='' is not a depth"),
        ({"questions": [{"id": "x"}]}, r"questions\[0\]: field 'text' is missing"),
        ({}, "question id 'D2-11' was used in line 1"),
        ({"id": "D2-1"}, "theory id 'D2-1' was used in line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", [LINE, {**LINE, "id": "D2-2", **change}])
    with pytest.raises(UserError, match=rf"p\.jsonl:2: {message}"):
        read_pararule(path, LABELS)


def test_the_real_files_are_read_completely(data_root: Path) -> None:
    fact = re.compile(r"(The (\w+ )?\w+|[A-Z][a-z]+) (is|likes|sees|needs|eats|visits|chases|attacks) .*")
    rule = re.compile(r"(If|All) .*|[A-Z][a-z]+ (people|animals) are .*")
    seen: set[str] = set()
    for name, (theories, questions) in FILES.items():
        read = read_pararule(data_root / "pararule_plus" / f"{name}.jsonl.gz", LABELS)
        assert (len(read), sum(len(problem.questions) for problem in read)) == (theories, questions)
        assert {len(problem.questions) for problem in read} == {8, 10}
        asked = [question for problem in read for question in problem.questions]
        assert {question.depth for question in asked} == {int(name[5])}
        assert Counter(question.answer for question in asked) == {"true": questions // 2, "false": questions // 2}
        # polarity alone is right on every question
        assert all((" not " in question.text) == (question.answer == "false") for question in asked)
        keys = {problem.theory for problem in read}
        assert len(keys) == theories and not keys & seen
        seen |= keys
        for problem in read:
            for sentence, kind in zip(problem.facts, problem.kinds, strict=True):
                assert bool(rule.fullmatch(sentence)) == (kind == "rule"), sentence
                assert kind == "rule" or fact.fullmatch(sentence), sentence
