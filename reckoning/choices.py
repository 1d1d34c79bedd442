"""Reader of multiple-choice files: one question per line about a paragraph of sentences, without proofs.

Two files belong together: `name.jsonl.gz` with id, context, question, options ("A) True") and answer ("A"), and,
where it exists, `name_annot.jsonl.gz` with depth and supporting sentences of one minimal proof.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.data.textfile import read_json_lines
from common.errors import UserError
from reckoning.problems import Problem, Question, check_fields, content_key, sentences_of, without_full_stop

FIELDS = {"id": str, "context": str, "question": str, "options": list, "answer": str}
PREAMBLE = re.compile(r"^(Based on the above information, )?is the following statement [^?]*\?\s*", re.IGNORECASE)
# What makes a sentence general: a condition, a quantifier, or a subject that is a class ("Young, cold people are ...").
RULE = re.compile(
    r"^(if|when|whenever|all|every|each|any|no|everyone|everything|someone|something|anyone|anything)\b"
    r"|\bthen\b"
    r"|^(\w+,? )*(people|things|persons|animals) (are|have|do|can|will|must|tend)\b",
    re.IGNORECASE,
)


def kind_of(sentence: str) -> str:
    """Say "rule" or "fact" by the wording alone: a rule opens with a condition or a quantifier, holds "then", or has a
    class of things as its subject; a fact speaks of a named or definite subject ("Anne", "The cow").

    Meant for ProofWriter's templates, which it separates without error; on free text it is a guess.
    """
    return "rule" if RULE.search(sentence) else "fact"


def annotations_beside(path: Path) -> Path | None:
    """The annotation file that belongs to a question file (`x.jsonl.gz` and `x_annot.jsonl.gz`), if there is one."""
    stem, dot, endings = path.name.partition(".")
    beside = path.with_name(f"{stem}_annot{dot}{endings}")
    return beside if beside.is_file() else None


def read_choices(path: Path, annotations: Path | None = None, labels: Mapping[str, str] | None = None) -> list[Problem]:
    """One problem per line of a multiple-choice file, in the order of the file.

    Answers are the option's words in lower case ("true", "false", "unknown"); `labels`, where given, must have them
    as keys. `theory` is the content key of the context, so questions about the same sentences never cross splits.
    With `annotations`, every question gets its depth and relevant sentences (none where the answer is unknown).

    Raises:
        UserError: `path:line: what is wrong; remedy`, for either file.
    """
    support = _annotations(annotations) if annotations is not None else None
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for number, record in read_json_lines(
        path, remedy="point data.root at the folder with the question files", own=False
    ):
        where = f"{path}:{number}"
        check_fields(record, FIELDS, where)
        name = record["id"]
        if name in lines:
            raise UserError(f"{where}: id {name!r} was used in line {lines[name]}; give every line an id of its own")
        lines[name] = number
        facts = sentences_of(record["context"])
        if not facts:
            raise UserError(f"{where}: context holds no sentence, the knowledge set is empty; fill it in")
        text = without_full_stop(PREAMBLE.sub("", record["question"]))
        if not text:
            raise UserError(f"{where}: question {record['question']!r} holds no statement; append the statement")
        depth, relevant = _support(support, name, len(facts), where, annotations) if support is not None else (None, ())
        question = Question(name, text, _answer(record, where, labels), relevant, depth)
        problems.append(Problem(name, content_key(facts), facts, tuple(map(kind_of, facts)), (question,)))
    return problems


def _answer(record: dict[str, Any], where: str, labels: Mapping[str, str] | None) -> str:
    words = {}
    for option in record["options"]:
        letter, bracket, word = str(option).partition(")")
        if not bracket or not word.strip():
            raise UserError(f'{where}: option {option!r} cannot be read; write it as "A) True"')
        words[letter.strip()] = word.strip().lower()
    letter = record["answer"].strip()
    if letter not in words:
        raise UserError(f"{where}: answer {letter!r} is none of the options {sorted(words)}; correct the line")
    if labels is not None and words[letter] not in labels:
        raise UserError(
            f"{where}: unknown label {words[letter]!r}, allowed are {sorted(labels)}; correct the line or add the "
            "label, with its answer word, to data.labels"
        )
    return words[letter]


def _annotations(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Question id -> (path:line, annotation)."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, record in read_json_lines(
        path, remedy="give the annotation file, or read without annotations", own=False
    ):
        where = f"{path}:{number}"
        for field in ("id", "n_sentences", "depth", "support"):
            if field not in record:
                raise UserError(f"{where}: field {field!r} is missing, found {sorted(record)}; correct the line")
        if not isinstance(record["id"], str):
            raise UserError(f"{where}: id={record['id']!r} is not a string; correct the line")
        support = record["support"]
        if support is not None and not (isinstance(support, list) and all(type(index) is int for index in support)):
            raise UserError(f"{where}: support={support!r} is not a list of sentence numbers or null; correct the line")
        found[record["id"]] = (where, record)
    return found


def _support(
    annotations: Mapping[str, tuple[str, dict[str, Any]]], name: str, facts: int, where: str, path: Path | None
) -> tuple[int | None, tuple[int, ...]]:
    if name not in annotations:
        raise UserError(f"{where}: question {name!r} has no line in {path}; take the two files of the same release")
    where, record = annotations[name]
    if record["n_sentences"] != facts:
        raise UserError(
            f"{where}: n_sentences={record['n_sentences']} but the context of {name!r} has {facts} sentences; "
            "take the two files of the same release"
        )
    relevant = tuple(dict.fromkeys(record["support"] or ()))
    if any(not 0 <= index < facts for index in relevant):
        raise UserError(f"{where}: support={list(relevant)}, the sentences are 0 to {facts - 1}; count from 0")
    return record["depth"], relevant
