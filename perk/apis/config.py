"""Settings of API retrieval."""

from dataclasses import dataclass
from enum import StrEnum


class Position(StrEnum):
    """Where the gold document stands among the others (paper, section 5.2)."""

    pre = "pre"
    """First."""
    mid = "mid"
    post = "post"
    """Last."""
    rnd = "rnd"
    """Anywhere."""


@dataclass
class ApisConfig:
    """One set of instructions over API documents."""

    position: Position = Position.rnd
    test_position: Position | None = None
    """Another position in the test split; null is the same."""

    def position_of(self, split: str) -> Position:
        """Where the gold document stands in a split."""
        return (self.test_position if split == "test" else None) or self.position
