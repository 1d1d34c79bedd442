"""Reader of PARARULE-Plus: a theory and its questions a line, closed world with negation as failure.

All its positive statements are true and all its negated ones false: `method=shortcuts` is right on every question
without reading the theory. It measures transfer of a form, not reasoning.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.choices import kind_of
from reckoning.problems import (
    Problem,
    Question,
    check_fields,
    content_key,
    known_label,
    sentences_of,
    without_full_stop,
)

FIELDS = {"id": str, "context": str, "questions": list}
QUESTION_FIELDS = {"id": str, "text": str, "label": str, "meta": dict}


def read_pararule(path: Path, labels: Mapping[str, str] | None = None) -> list[Problem]:
    """One problem a theory with all its questions, in the order of the file.

    Answers are true or false, and keys of `labels` where given; depth is the file's QDep. Proofs are not given, so no
    sentence is known to be relevant and the answer alone is asked for.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    problems: list[Problem] = []
    lines: dict[tuple[str, str], int] = {}
    for number, record in read_json_lines(
        path, remedy="point data.root at the folder with depth2_dev.jsonl.gz", own=False
    ):
        where = f"{path}:{number}"
        check_fields(record, FIELDS, where)
        facts = sentences_of(record["context"])
        if not facts or not record["questions"]:
            raise UserError(f"{where}: {len(facts)} sentences, {len(record['questions'])} questions; remove the line")
        questions = tuple(
            _question(asked, f"{where}: questions[{index}]", labels) for index, asked in enumerate(record["questions"])
        )
        for key in (("theory", record["id"]), *(("question", question.id) for question in questions)):
            if key in lines:
                raise UserError(
                    f"{where}: {key[0]} id {key[1]!r} was used in line {lines[key]}; give it one of its own"
                )
            lines[key] = number
        problems.append(Problem(record["id"], content_key(facts), facts, tuple(map(kind_of, facts)), questions))
    return problems


def _question(asked: Any, where: str, labels: Mapping[str, str] | None) -> Question:
    if not isinstance(asked, dict):
        raise UserError(f"{where}={asked!r} is not an object; needed are {list(QUESTION_FIELDS)}")
    check_fields(asked, QUESTION_FIELDS, where)
    text = without_full_stop(asked["text"])
    if not text:
        raise UserError(f"{where}: text is empty; fill it in")
    depth = str(asked["meta"].get("QDep", ""))
    if not depth.isdecimal():
        raise UserError(f"{where}: meta.QDep={depth!r} is not a depth; write a whole number")
    return Question(asked["id"], text, known_label(asked["label"].strip().lower(), labels, where), depth=int(depth))
