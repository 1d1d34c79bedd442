"""Settings of the multi-document questions."""

from dataclasses import dataclass
from enum import StrEnum

from common.errors import UserError


class Kind(StrEnum):
    """Which data set; the form of files follows it."""

    hotpotqa = "hotpotqa"
    """Two gold paragraphs a question, supporting sentences known."""
    triviaqa = "triviaqa"
    """Several accepted answers; passages that hold one are gold."""


class Distractors(StrEnum):
    """How the passages that fill the context are chosen."""

    bm25 = "bm25"
    """The best matches of the question that neither are gold nor hold an answer."""
    drawn = "drawn"
    """At random."""


@dataclass
class DocumentsConfig:
    """One set of questions over passages."""

    kind: Kind = Kind.hotpotqa
    distractors: Distractors = Distractors.bm25
    pool: str | None = None
    """Passages to choose from, one object with title and text a line, besides those that come with the questions."""
    evidence: str | None = None
    """TriviaQA's folder `evidence` with the documents that its official files name."""
    most_gold: int = 3
    """Gold passages kept of a TriviaQA question."""

    def validate(self, prefix: str) -> None:
        """Refuse what cannot be built.

        Raises:
            UserError: naming the key.
        """
        if self.most_gold < 1:
            raise UserError(f"{prefix}.most_gold={self.most_gold}: use 1 or more")
