"""Settings of the student records."""

from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import UserError


class Ask(StrEnum):
    """What is asked of the records."""

    recall = "recall"
    """An attribute of one student."""
    relation = "relation"
    """Yes or no about two students."""
    aggregate = "aggregate"
    """Highest, lowest and average grade."""
    count = "count"  # type: ignore[assignment]  # a string has a method of that name
    """How many students have an attribute (in the released code, not in the paper)."""
    sort = "sort"
    """The students with the highest grades, in order (in the released code, not in the paper)."""


class Variant(StrEnum):
    """How records and questions are drawn."""

    published = "published"
    """Grades over the whole range, pairs at random: constant answers do well."""
    repaired = "repaired"
    """Every context has a range of grades of its own, and as many pairs say yes as no: constant answers stay low."""


@dataclass
class StudentsConfig:
    """One set of student records."""

    ask: Ask = Ask.recall
    variant: Variant = Variant.published
    grades: list[int] = field(default_factory=lambda: [10, 99])
    """Lowest and highest grade."""

    def validate(self, prefix: str) -> None:
        """Refuse ranges that cannot be drawn from.

        Raises:
            UserError: naming the key.
        """
        if len(self.grades) != 2 or not 0 <= self.grades[0] < self.grades[1] <= 999:
            raise UserError(f"{prefix}.grades={self.grades}: give the lowest and the highest, such as [10, 99]")
