"""Reader of CLUTRR sets as CLUTRR's generator writes them: one story a row (facebookresearch/clutrr, CC BY-NC 4.0).

Sinha, Sodhani, Dong, Pineau, Hamilton: "CLUTRR: A Diagnostic Benchmark for Inductive Reasoning from Text", EMNLP 2019.
"""

import ast
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

from common.data.textfile import read_csv
from common.errors import UserError
from reckoning.clutrr.kinship import WORDS, readings
from reckoning.clutrr.noise import passages_of
from reckoning.clutrr.wording import question_text
from reckoning.problems import Problem, Question, content_key, without_full_stop

logger = logging.getLogger(__name__)
COLUMNS = ("id", "story", "clean_story", "query", "target", "f_comb", "task_name", "edge_types")
CLEAN = "1"
"""First number of a task without noise; 2, 3 and 4 have supporting, irrelevant and disconnected sentences besides."""
TASK = re.compile(r"task_(\d+)\.(\d+)")
MISSPELT = {"neice": "niece"}
NAME = re.compile(r"\[([^\]]+)\]")
END = re.compile(r"(?<=[.!?])\s+|(?<=\])\s+(?=\[)")
"""Between two sentences; the sets join some without a full stop, and then one name follows another."""


def read_rows(path: Path, hops: int | None = None) -> list[Problem]:
    """One problem a row, in the order of the file; with `hops` only the rows of so many.

    The facts are the sentences of the story, without the brackets around names; a sentence that names fewer than two
    persons belongs to the one before it. Without noise they stand along the chain and all are relevant. With noise
    (tasks 2.k, 3.k, ...) they stand as told, and relevant are those that the clean story has, along the chain. Depth is
    the number of hops, which in crowd-sourced stories need not be the number of sentences.

    Raises:
        UserError: `path:line: what is wrong; remedy`; also where the answer is no composition of the row's relations,
            or no row has so many hops.
    """
    problems = []
    there: set[int] = set()
    noise: Counter[str] = Counter()
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
            noise[_task(row, where)[0]] += 1
    if len(noise) > 1:
        kinds = ", ".join(f"{count} of tasks {kind}.k" for kind, count in sorted(noise.items()))
        logger.warning(
            "%s: rows with and without noise are one set: %s; give each a file for numbers apart", path, kinds
        )
    if not there:
        raise UserError(f"{path}: no row below the columns; take a file of CLUTRR's generator")
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
    if _task(row, where)[1] != str(len(words)):
        raise UserError(f"{where}: task_name={row['task_name']!r} for {len(words)} edge_types; correct one of them")
    if row["f_comb"] != "-".join(written):
        raise UserError(f"{where}: f_comb={row['f_comb']!r} is not edge_types={written} joined; correct one of them")
    return words


def _problem(row: dict[str, str], where: str, name: str) -> Problem:
    words = path_of(row, where)
    # the release for `datasets` has a number as target, and the word beside it
    target = row.get("target_text", "") if row["target"].isdecimal() else row["target"]
    answer = MISSPELT.get(target, target)
    if answer not in readings(tuple(words)):
        raise UserError(f"{where}: target={answer!r} is no composition of {'-'.join(words)}; correct the line")
    persons = _literal(row, "query", where, tuple)
    if len(persons) != 2:
        raise UserError(f"{where}: query={row['query']!r} does not name two persons; write ('Anne', 'Bob')")
    facts = _facts(row["clean_story"])
    if not facts:
        raise UserError(f"{where}: clean_story is empty; remove the line")
    relevant = tuple(range(len(facts)))
    if _task(row, where)[0] != CLEAN:
        facts, relevant = _noisy(row, where)
    of, who = persons
    question = Question(name, question_text(who, of), answer, relevant, len(words))
    return Problem(name, content_key(facts), tuple(facts), (), (question,))


def _task(row: dict[str, str], where: str) -> tuple[str, str]:
    """Kind of noise and number of hops."""
    found = TASK.fullmatch(row["task_name"])
    if found is None:
        raise UserError(f"{where}: task_name={row['task_name']!r} is no task; write it as task_1.3")
    return found[1], found[2]


def _noisy(row: dict[str, str], where: str) -> tuple[list[str], tuple[int, ...]]:
    """Facts of a story with noise, and which are relevant, in the order of the clean story."""
    passages = passages_of(row["story"], row["clean_story"])
    if passages is None:
        raise UserError(
            f"{where}: clean_story is no part of story, so nothing tells which sentences of {row['task_name']} are "
            "noise; correct the line"
        )
    facts: list[str] = []
    places: list[tuple[int, int]] = []
    for text, place in passages:
        own = _facts(text)
        if place is not None:
            places += [(place, index) for index in range(len(facts), len(facts) + len(own))]
        facts += own
    return facts, tuple(index for _, index in sorted(places))


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
