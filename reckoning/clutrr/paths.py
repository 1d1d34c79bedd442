"""Which paths there are, and which split each belongs to.

The path of a story is the sequence of its relation words. Nothing here depends on a seed or a setting: the split of a
path is decided by the SHA-256 of its words.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import product

from reckoning.clutrr.family import can_happen
from reckoning.clutrr.kinship import RULES, WORDS, compose, readings

Path = tuple[str, ...]
COUNTED = 4
"""Paths of up to so many words are few, some answers have four of them: they are counted out answer by answer, so that
each split gets its share. Longer ones go by their digest alone."""
SHARE = 8
"""Of so many paths of an answer one is held out for dev and one for test."""
FEWEST = 3
"""An answer with fewer paths than this leaves them all to train."""


@cache
def compositions() -> dict[Path, str]:
    """The 62 pairs of words that CLUTRR composes, with what they give."""
    pairs = ((one, two) for one, two in product(WORDS, WORDS) if (WORDS[one][0], WORDS[two][0]) in RULES)
    return {pair: found for pair in pairs if (found := compose(*pair))}


def answers_of(split: str, hops: int, *, by_path: bool) -> list[str]:
    """The words that a split's stories of so many facts can have as answer: 18 of the 22, fewer where the 62 paths of
    two facts are held out (`by_path`)."""
    if by_path and hops <= COUNTED:
        return sorted({answer for path, answer in paths_of(hops).items() if split_of(path) == split})
    return sorted(set(compositions().values()))


def split_of(path: Sequence[str]) -> str | None:
    """The one split whose stories may have this path, where paths are held out; None for one that no story can have."""
    if len(path) <= COUNTED:
        return _counted_out(len(path)).get(tuple(path))
    return split_by_digest("-".join(path))


def split_by_digest(text: str) -> str:
    """test and dev for one of eight texts each, else train."""
    return {0: "test", 1: "dev"}.get(_digest(text)[0] % SHARE, "train")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@cache
def paths_of(hops: int) -> dict[Path, str]:
    """All paths of so many words that a story can have, with their one reading."""
    one = {path: next(iter(words)) for path in _grown(hops) if len(words := readings(path)) == 1}
    return {path: answer for path, answer in one.items() if can_happen(path, answer)}


@cache
def _grown(hops: int) -> frozenset[Path]:
    pairs = compositions()
    if hops == 2:
        return frozenset(pairs)
    into = defaultdict(list)
    for pair, word in pairs.items():
        into[word].append(pair)
    shorter = _grown(hops - 1)
    return frozenset(
        (*path[:place], *pair, *path[place + 1 :])
        for path in shorter
        for place in range(hops - 1)
        for pair in into[path[place]]
    )


@cache
def _counted_out(hops: int) -> dict[Path, str]:
    of_answer = defaultdict(list)
    for path, answer in paths_of(hops).items():
        of_answer[answer].append(path)
    splits = {}
    for paths in of_answer.values():
        paths.sort(key=lambda path: _digest("-".join(path)))
        held = max(1, len(paths) // SHARE) if len(paths) >= FEWEST else 0
        for place, path in enumerate(paths):
            splits[path] = "test" if place < held else "dev" if place < 2 * held else "train"
    return splits
