"""Settings of the BabiLong builder."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import OmegaConf

from common.errors import UserError

FILES = {
    1: "qa1_single-supporting-fact",
    2: "qa2_two-supporting-facts",
    3: "qa3_three-supporting-facts",
    4: "qa4_two-arg-relations",
    5: "qa5_three-arg-relations",
}
"""How the official file of a bAbI task begins."""

SHORT = {1: [3, 5], 2: [4, 7], 3: [6, 9], 4: [2, 2], 5: [3, 5]}
"""Task -> fewest and most facts of a story that a small scale can afford."""

OmegaConf.register_new_resolver("short_story", SHORT.get, replace=True)
OmegaConf.register_new_resolver("babi_file", lambda task: FILES.get(task, f"qa{task}"), replace=True)


class Budget(StrEnum):
    """What the context's length counts."""

    on_top = "on_top"
    """The haystack; facts come on top (the paper's samples)."""
    inside = "inside"
    """Haystack and facts (the official generator)."""


class Index(StrEnum):
    """What stands before a fact."""

    character = "character"
    """`<Name> Event <k>:`, counted from 0 for each character (the paper)."""
    story = "story"
    """`Event <k>:`, one global count over the story."""
    none = "none"


class Placement(StrEnum):
    """Where the facts go."""

    scattered = "scattered"
    """Each into a random segment, at a random place between sentences."""
    grouped = "grouped"
    """Those of a character together, one character a segment or as many as it needs, in segments that follow each
    other (the released QA2 and QA3 samples)."""
    pre = "pre"
    """All within the first tenth of the segments, or as many as they need."""
    mid = "mid"
    post = "post"


class Order(StrEnum):
    """In which order the facts of a story stand in the text."""

    story = "story"
    """As they happened."""
    drawn = "drawn"
    """At random, so that only the index tells (the paper's wording, taken literally)."""


@dataclass
class HaystackConfig:
    """The long text that facts are hidden in."""

    source: str | None = None
    """A text file, a folder of them, a folder or a file that `datasets` reads, or a data set of the hub that was
    fetched before. Null is generated English, which needs no file."""
    subset: str | None = None
    """Name of a configuration of a hub data set."""
    split: str = "train"
    column: str = "text"

    def validate(self, prefix: str) -> None:
        """Refuse settings that belong to a source which is not there.

        Raises:
            UserError: naming the key.
        """
        if self.source is None and self.subset is not None:
            raise UserError(f"{prefix}.subset={self.subset} without {prefix}.source: name the data set")


@dataclass
class WorldConfig:
    """Our own worlds: who acts, where and with what. Names come in the order of bAbI's first."""

    persons: int = 4
    places: int = 6
    objects: int = 3
    facts: list[int] = field(default_factory=list)
    """Fewest and most facts of a story; empty takes bAbI's habit for the task."""

    def validate(self, prefix: str, task: int) -> None:
        """Refuse worlds in which nothing can happen.

        Raises:
            UserError: naming the key.
        """
        from perk.babilong.vocabulary import GIVERS, OBJECTS, PERSONS, PLACES

        people = GIVERS if task == 5 else PERSONS
        for key, least, most in (
            ("persons", 2 if task == 5 else 1, len(people)),
            ("places", 3, len(PLACES)),
            ("objects", 1, len(OBJECTS)),
        ):
            if not least <= getattr(self, key) <= most:
                raise UserError(f"{prefix}.{key}={getattr(self, key)}: use {least} to {most}")
        if self.facts and (len(self.facts) != 2 or not 1 <= self.facts[0] <= self.facts[1]):
            raise UserError(f"{prefix}.facts={self.facts}: give the fewest and the most, such as [2, 10]; [] is bAbI's")


@dataclass
class BabilongConfig:
    """One BabiLong set."""

    task: int = 1
    """bAbI task 1 to 5."""
    budget: Budget = Budget.on_top
    index: Index = Index.character
    placement: Placement = Placement.scattered
    test_placement: Placement | None = None
    """Another placement in the test split; null is the same."""
    order: Order = Order.story
    most_facts: int = 0
    """Leave out questions with more facts before them; 0 keeps all (the released samples do)."""
    haystack: HaystackConfig = field(default_factory=HaystackConfig)
    world: WorldConfig = field(default_factory=WorldConfig)

    def placement_of(self, split: str) -> Placement:
        """Where the facts go in a split."""
        return (self.test_placement if split == "test" else None) or self.placement

    def validate(self, prefix: str) -> None:
        """Refuse what cannot be built.

        Raises:
            UserError: naming the key.
        """
        if not 1 <= self.task <= 5:
            raise UserError(f"{prefix}.task={self.task}: bAbI tasks 1 to 5 are known here")
        if self.most_facts < 0:
            raise UserError(f"{prefix}.most_facts={self.most_facts}: use 0 (all) or more")
        if self.order is Order.drawn and Placement.grouped in (self.placement, self.test_placement):
            raise UserError(f"{prefix}.order=drawn with placement=grouped: a group keeps its story's order; use story")
        if self.order is Order.drawn and self.index is Index.none:
            raise UserError(f"{prefix}.order=drawn with index=none: nothing would tell the order; use an index")
        self.haystack.validate(f"{prefix}.haystack")
        self.world.validate(f"{prefix}.world", self.task)
