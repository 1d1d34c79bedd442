"""The splits of kinship stories, made or read."""

import logging
import random
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
    return found


def _ordered(problem: Problem, config: DataConfig, split: str) -> Problem:
    if config.order is not Order.shuffled:
        return problem  # as in the file, which holds no distractors
    places = list(range(len(problem.facts)))
    random.Random(f"{config.seed}/{split}/{problem.id}/order").shuffle(places)
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
