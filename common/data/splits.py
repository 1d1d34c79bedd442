"""Who belongs to which split: by shares for things that are at hand, by content for things made to order."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError

T = TypeVar("T")
SPLITS = ("train", "dev", "test")
BUCKETS = {"train": range(0, 12), "dev": range(12, 14), "test": range(14, 16)}
"""Of 16 buckets, for what is at hand."""
PRETRAIN = "pretrain"
"""Text that a base model is pre-trained on: no split of a data set has any of it."""
MADE = {**BUCKETS, "train": range(0, 11), PRETRAIN: range(11, 12)}
"""For what is made to order: it is kept only by the split that its own content falls to."""


def cut(keys: Iterable[str], shares: Mapping[str, float], seed: int, what: str = "groups") -> dict[str, str]:
    """Key -> split, in shares that count keys. Which key goes where depends on the seed and the keys alone.

    Raises:
        UserError: shares (`data.shares`) that are not positive with sum 1, or too few keys (`what` they are) for all.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"data.shares={dict(shares)}: shares must be positive and sum to 1; e.g. 0.8, 0.1 and 0.1")
    drawn = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    found: dict[str, str] = {}
    total, start = 0.0, 0
    for split, share in shares.items():
        total += share
        end = round(total * len(drawn))
        if end == start:
            raise UserError(
                f"data.shares={dict(shares)}: {len(drawn)} {what} leave none for {split!r}; "
                "use a larger file or a larger share"
            )
        found.update(dict.fromkeys(drawn[start:end], split))
        start = end
    return found


def shares_of(shares: Mapping[str, float], missing: Iterable[str]) -> dict[str, float]:
    """The shares in which a train file is cut where the files of `missing` splits are not there: with sum 1."""
    wanted = {split: shares.get(split, 0.0) for split in ("train", *missing)}
    return {split: share / (sum(wanted.values()) or 1) for split, share in wanted.items()}


def completed(
    read: Mapping[str, list[T]], key: Callable[[T], str], shares: Mapping[str, float], seed: int, what: str
) -> dict[str, list[T]]:
    """All three splits, those that `read` lacks cut from its `train`: what has the same key stays together.

    Raises:
        UserError: as `cut`.
    """
    missing = [split for split in SPLITS if split not in read]
    if not missing:
        return dict(read)
    whole = read["train"]
    split_of = cut(map(key, whole), shares_of(shares, missing), seed, what)
    return {**read, **{split: [x for x in whole if split_of[key(x)] == split] for split in ("train", *missing)}}


def check_disjoint(
    keys: Mapping[str, set[str]], what: str, names: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """See that no two splits share a key; `names` say, a split and key, what has it.

    Raises:
        UserError: two do; `what` the keys are.
    """
    for a, b in combinations(keys, 2):
        if both := keys[a] & keys[b]:
            first = min(both)
            where = f"it is in {names[a][first]} and {names[b][first]}; " if names else ""
            raise UserError(
                f"data: the {a} and {b} splits share {len(both)} {what} (such as {first}); {where}give them files that "
                "share none, or leave data.files.dev and data.files.test null to cut the train file"
            )


def bucket(content: str) -> int:
    """One of 16 buckets, by content alone: the same whatever the seed or the settings."""
    return hashlib.sha256(content.encode()).digest()[0] % 16


def belongs(content: str, split: str) -> bool:
    """Does `content`, made to order, fall to `split`?"""
    return bucket(content) in MADE[split]


def build_digest(settings: Mapping[str, Any], files: Mapping[str, Path], package: str) -> str:
    """Key of splits that are kept once built: of `settings`, of the content of the files and folders they are read
    from, and of the code of the package that builds them.

    Raises:
        UserError: a file cannot be read.
    """
    code = hashlib.sha256()
    for path in sorted(Path(str(resources.files(package))).rglob("*.py")):
        code.update(path.read_bytes())
    keys = [settings, {name: content_digest(path) for name, path in files.items()}, code.hexdigest()]
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:12]


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files below a folder; whatever their times.

    Raises:
        UserError: one cannot be read.
    """
    try:
        inside = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        found = [(str(each.relative_to(path)), _bytes_digest(each, *_state(each))) for each in inside]
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    return found[0][1] if path.is_file() else hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@cache
def _bytes_digest(path: Path, *state: int) -> str:
    """Once a process, unless the file was written to."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: str) -> str:
    """Key of a content: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]
