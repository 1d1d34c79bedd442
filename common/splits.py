"""Who belongs to which split: by shares for things that are at hand, by content for things made to order."""

import hashlib
from collections.abc import Iterable, Mapping

from common.errors import UserError

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


def bucket(content: str) -> int:
    """One of 16 buckets, by content alone: the same whatever the seed or the settings."""
    return hashlib.sha256(content.encode()).digest()[0] % 16


def belongs(content: str, split: str) -> bool:
    """Does `content`, made to order, fall to `split`?"""
    return bucket(content) in MADE[split]


def digest(content: str) -> str:
    """Key of a content: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]
