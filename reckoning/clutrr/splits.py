"""The splits of kinship stories, made or read."""

import logging
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from common.errors import UserError
from common.run.schema import plain
from reckoning.clutrr.generator import generate
from reckoning.clutrr.rows import read_rows
from reckoning.clutrr.text import read_text
from reckoning.config import SPLITS, DataConfig, Format, Order
from reckoning.problems import Problem

logger = logging.getLogger(__name__)
TESTED = re.compile(r"(\d)\.\d+_test")
"""How a test file of one task is named: the kind of noise and the hops."""
HOPS = "{hops}"
"""Stands in a file's name for the number of hops: `data.hops`, in the test split each of `data.clutrr.test_hops`."""
Find = Callable[[str | None, str], Path]
"""(root, name) -> file below it."""


def made(config: DataConfig, split: str) -> list[Problem]:
    """As many generated stories as `data.theories` says."""
    hops = hops_of(config, split)
    others, order = int(config.distractors), config.order.value
    return [
        generate(config.clutrr, config.seed, split, number, hops, distractors=others, order=order)
        for number in range(config.theories.get(split, 0))
    ]


def hops_of(config: DataConfig, split: str) -> list[int]:
    """Hops of a split's stories."""
    return config.clutrr.test_hops if split == "test" else [config.hops] if config.hops else []


def read(config: DataConfig, split: str, find: Find) -> list[Problem]:
    """The stories of a split's files, hops in turn, sentences in the order that `data.order` says."""
    reader = read_text if config.format is Format.clutrr_text else read_rows
    parts = [reader(path, hops) for hops, path in _files(config, split, find)]
    turns = chain.from_iterable(zip_longest(*parts))
    return [_ordered(problem, config, split) for problem in turns if problem is not None]


def files(config: DataConfig, find: Find) -> list[Path]:
    """Every file whose name depends on the hops."""
    return [path for split in SPLITS if HOPS in (_name(config, split) or "") for _, path in _files(config, split, find)]


def names(config: DataConfig) -> list[str]:
    """The name of every file, with its hops; those of a CSV set need not all be there."""
    found: list[str] = []
    for split in SPLITS:
        if (name := _name(config, split)) is not None:
            hops = hops_of(config, split) if HOPS in name else [0]
            found += [name.replace(HOPS, str(each)) for each in hops]
    return found


def _name(config: DataConfig, split: str) -> str | None:
    name: str | None = plain(config.files)[split]
    return name


def _files(config: DataConfig, split: str, find: Find) -> list[tuple[int | None, Path]]:
    """(hops, file) of a split. A CSV set need not have all of the test hops."""
    name = _name(config, split) or ""
    if HOPS not in name:
        return [(config.hops, find(config.root, name))]
    found: list[tuple[int | None, Path]] = []
    missing: list[int] = []
    for hops in hops_of(config, split):
        try:
            found.append((hops, find(config.root, name.replace(HOPS, str(hops)))))
        except UserError:
            missing.append(hops)
            if config.format is Format.clutrr_text or len(missing) == len(hops_of(config, split)):
                raise
    if missing:
        logger.info("%s: no %s file of %s hops", config.name, split, ", ".join(map(str, missing)))
    if config.format is Format.clutrr_csv:
        _tell_of_noise(config, split, [path for _, path in found])
    return found


def _tell_of_noise(config: DataConfig, split: str, read: list[Path]) -> None:
    """A set that tests robustness has files of other tasks beside those that are read; a number would say nothing of
    them."""
    tasks = {path: kind[1] for path in {each for own in read for each in own.parent.iterdir()}
             if (kind := TESTED.match(path.name))}  # fmt: skip
    asked = {tasks[path] for path in read if path in tasks}
    if left := sorted({kind for kind in tasks.values() if kind not in asked}):
        logger.warning(
            "%s: the %s split reads tasks %s.k alone; files with other noise lie beside them: data.files.%s="
            "'clutrr/%s/%s.{hops}_test*.csv*' reads those of tasks %s.k",
            config.name, split, ", ".join(sorted(asked)), split, config.clutrr.set, left[0], left[0],
        )  # fmt: skip


def _ordered(problem: Problem, config: DataConfig, split: str) -> Problem:
    places = list(range(len(problem.facts)))
    if config.order is Order.shuffled:
        random.Random(f"{config.seed}/{split}/{problem.id}/order").shuffle(places)
    else:  # as in the file, but for noise
        last = config.order is Order.distractors_first
        places.sort(key=lambda place: (place in problem.questions[0].relevant) is last)
    questions = tuple(
        replace(question, relevant=tuple(places.index(fact) for fact in question.relevant))
        for question in problem.questions
    )
    return replace(problem, facts=tuple(problem.facts[place] for place in places), questions=questions)


def without_shared(splits: dict[str, list[Problem]]) -> dict[str, list[Problem]]:
    """Leave out of train what dev or test has, and of dev what test has: with 20 persons stories recur by chance."""
    taken: set[str] = set()
    for split in reversed(SPLITS):
        kept = [problem for problem in splits[split] if problem.theory not in taken]
        if dropped := len(splits[split]) - len(kept):
            logger.info("%d %s stories are left out, as a later split has them too", dropped, split)
        taken |= {problem.theory for problem in kept}
        splits[split] = kept
    return splits
