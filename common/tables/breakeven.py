"""What is done once and what every question costs: two ways to answer, and where one overtakes the other."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """Seconds for n questions: read + question * n."""

    read: float
    question: float

    def total(self, questions: int) -> float:
        """Seconds of reading and of so many questions."""
        return self.read + self.question * questions


def break_even(ours: Line, other: Line) -> float:
    """The smallest number of questions from which on `ours` takes less time; infinite where it never does."""
    saved, spent = other.question - ours.question, ours.read - other.read
    if saved < 0 or (saved == 0 and spent >= 0):
        return math.inf
    return 1 if saved == 0 else max(1, math.floor(spent / saved) + 1)
