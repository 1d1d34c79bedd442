"""Reader of CLUTRR sets as CLUTRR's generator writes them: one story a row (facebookresearch/clutrr, CC BY-NC 4.0).

Sinha, Sodhani, Dong, Pineau, Hamilton: "CLUTRR: A Diagnostic Benchmark for Inductive Reasoning from Text", EMNLP 2019.
"""

import ast
import re
from pathlib import Path
from typing import Any

from common.data.textfile import read_csv
from common.errors import UserError
from reckoning.clutrr.kinship import WORDS, readings
from reckoning.clutrr.wording import question_text
from reckoning.problems import Problem, Question, content_key, without_full_stop

COLUMNS = ("id", "clean_story", "query", "target", "f_comb", "task_name", "edge_types")
MISSPELT = {"neice": "niece"}
NAME = re.compile(r"\[([^\]]+)\]")
END = re.compile(r"(?<=[.!?])\s+|(?<=\])\s+(?=\[)")
"""Between two sentences; the sets join some without a full stop, and then one name follows another."""


def read_rows(path: Path, hops: int | None = None) -> list[Problem]:
    """One problem a row, in the order of the file; with `hops` only the rows of so many.

    The facts are the sentences of the story along its chain, without the brackets around names; a sentence that names
    fewer than two persons belongs to the one before it. All are relevant. Depth is the number of hops, which in
    crowd-sourced stories need not be the number of sentences.

    Raises:
        UserError: `path:line: what is wrong; remedy`; also where the answer is no composition of the row's relations,
            or no row has so many hops.
    """
    problems = []
    there: set[int] = set()
    for number, row in read_csv(path, remedy="point data.root at the folder that holds clutrr/"):
        where = f"{path}:{number}"
        if missing := [column for column in COLUMNS if column not in row]:
            raise UserError(
                f"{where}: no column {missing[0]!r}, found {sorted(row)}; take a file of CLUTRR's generator"
            )
        problem = _problem(row, where, f"{path.name.split('.csv')[0]}:{number}")
        depth = problem.questions[0].depth
        there.add(depth or 0)
        if hops in (None, depth):
            problems.append(problem)
    if not problems:
        raise UserError(
            f"{path}: no row of {hops} hops, but of {sorted(there)}; set data.hops to one of these, or null"
        )
    return problems


def path_of(row: dict[str, str], where: str) -> list[str]:
    """The row's relation words from the first person to the last, checked.

    Raises:
        UserError: unknown words, not as many as the task says, or not what the column f_comb says.
    """
    written = _literal(row, "edge_types", where, list)
    words = [MISSPELT.get(word, word) for word in written]
    if strange := [word for word in words if word not in WORDS]:
        raise UserError(f"{where}: edge_types: {strange[0]!r} is no kinship word; known are {sorted(WORDS)}")
    if row["task_name"].rpartition(".")[2] != str(len(words)):
        raise UserError(f"{where}: task_name={row['task_name']!r} for {len(words)} edge_types; correct one of them")
    if row["f_comb"] != "-".join(written):
        raise UserError(f"{where}: f_comb={row['f_comb']!r} is not edge_types={written} joined; correct one of them")
    return words


def _problem(row: dict[str, str], where: str, name: str) -> Problem:
    words = path_of(row, where)
    answer = MISSPELT.get(row["target"], row["target"])
    if answer not in readings(tuple(words)):
        raise UserError(f"{where}: target={answer!r} is no composition of {'-'.join(words)}; correct the line")
    persons = _literal(row, "query", where, tuple)
    if len(persons) != 2:
        raise UserError(f"{where}: query={row['query']!r} does not name two persons; write ('Anne', 'Bob')")
    facts = tuple(_facts(row["clean_story"]))
    if not facts:
        raise UserError(f"{where}: clean_story is empty; remove the line")
    of, who = persons
    question = Question(name, question_text(who, of), answer, tuple(range(len(facts))), len(words))
    return Problem(name, content_key(facts), facts, (), (question,))


def _facts(story: str) -> list[str]:
    joined: list[str] = []
    for sentence in END.split(story.strip()):
        if joined and len(set(NAME.findall(sentence))) < 2:
            joined[-1] += f" {sentence}"
        else:
            joined.append(sentence)
    return [text for sentence in joined if (text := without_full_stop(" ".join(NAME.sub(r"\1", sentence).split())))]


def _literal(row: dict[str, str], column: str, where: str, kind: type[list[str]] | type[tuple[str, ...]]) -> Any:
    try:
        value = ast.literal_eval(row[column])
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, kind) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: {column}={row[column]!r} cannot be read; a {kind.__name__} of words is needed")
    return value
