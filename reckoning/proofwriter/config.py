"""Settings of the theory generator."""

from dataclasses import dataclass, field

from common.errors import UserError

SHAPES = ("matched", "square", "shared", "random")
WORLDS = ("open", "closed")


@dataclass
class GeneratorConfig:
    """What generated theories look like.

    Shapes: `random` follows ProofWriter (random facts and rules, questions of every depth up to the theory's).
    `matched` plants groups of three questions that differ in their subject only, one subject per label.
    `square` plants three predicates over three subjects so that every subject is true for one of them, false for
    another and unknown for the third: 9 questions from 3 chains, and no sentence is a mere decoy.
    `shared` is `matched` at depth 1 with rules that are the same in all theories, so that a learner need only keep the
    facts of a theory; which of them holds for whom still decides every label.
    """

    shape: str = "matched"  # matched | square | shared | random
    world: str = "open"  # open: true, false, unknown; closed: what cannot be proven is false (no unknown)
    depths: list[int] = field(default_factory=lambda: [1])  # rule applications; drawn per theory
    groups: int = 1  # matched, square: planted groups over the same subjects
    polarity: str = "both"  # matched, square: ask both, or one "drawn" per group and predicate
    broken: float = 0.0  # matched, depth 2 or more: share of unknown chains that miss a link instead of leading away
    distractors: int = 0  # planted: further sentences; matched, square: about other entities and attributes; shared:
    # one half facts about persons nobody asks about, the other rules whose conditions nobody meets
    entities: int = 4  # random: named entities; matched and square always use one per label
    facts: int = 8  # random
    rules: int = 6  # random
    questions: int = 18  # random: at most this many per theory
    body: int = 1  # conditions of a rule: random: 1 to this many; matched, square: of each first rule
    relations: float = 0.0  # share of statements with a verb and an object instead of an attribute
    negation: float = 0.0  # share of negated statements (closed world: of negated conditions)
    specific: float = 0.0  # random: share of rules about one named entity
    animals: float = 0.0  # share of theories about animals ("the cat") instead of persons ("Anne")
    names: int = 24  # sizes of the word lists drawn from; the shortest common words come first
    attributes: int = 32
    verbs: int = 8
    paraphrases: int = 1  # English patterns per statement and rule; 1: only the plain one

    @property
    def planted(self) -> bool:
        """Are the questions made before the sentences?"""
        return self.shape != "random"

    def validate(self, prefix: str = "generator") -> None:
        """Raise UserError, naming the key as `prefix.key`, for settings that no theory can satisfy."""
        from reckoning.proofwriter.vocabulary import ANIMALS, ATTRIBUTES, NAMES, PATTERNS, VERBS

        def refuse(key: str, remedy: str) -> None:
            raise UserError(f"{prefix}.{key}={getattr(self, key)!r}: {remedy}")

        for key, allowed in (("shape", SHAPES), ("world", WORLDS), ("polarity", ("both", "drawn"))):
            if getattr(self, key) not in allowed:
                refuse(key, f"use one of {', '.join(allowed)}")
        for key in ("broken", "relations", "negation", "specific", "animals"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                refuse(key, "a share from 0 to 1")
        least = {"groups": 1, "distractors": 0, "facts": 1, "rules": 1, "questions": 1, "body": 1, "entities": 1}
        for key, value in least.items():
            if getattr(self, key) < value:
                refuse(key, f"use {value} or more")
        if not self.depths or min(self.depths) < 0:
            refuse("depths", "a list of depths from 0 on, such as [1, 2]")
        if not self.planted and max(self.depths) > self.rules:
            refuse("depths", f"a proof of that depth needs as many rules; raise {prefix}.rules={self.rules}")
        if self.shape == "shared":
            fixed: dict[str, object] = {"world": "open", "depths": [1], "groups": 1, "body": 1}
            for name, only in fixed.items():
                if getattr(self, name) != only:
                    refuse(name, f"{prefix}.shape=shared has {only} only; use {prefix}.shape=matched")
            if self.attributes < 10:
                refuse("attributes", f"{prefix}.shape=shared needs 10 or more")
            rules = self.attributes - self.attributes // 5  # of which three are planted, as are three names
            most = 2 * (min(self.names, rules) - 3)
            if self.distractors > most:
                refuse("distractors", f"{prefix}.shape=shared has room for {most} with these names and attributes")
        if self.shape == "square" and self.world == "closed":
            refuse("world", f"{prefix}.shape=square has three labels; use {prefix}.shape=matched or world=open")
        if self.body > 3:
            refuse("body", "at most 3 conditions")
        needed = self._statements() if self.planted else 2 * self.body + max(self.depths)
        for key, words, fewest in (
            ("names", min(len(NAMES), len(ANIMALS)), 6 if self.planted else self.entities),
            ("attributes", len(ATTRIBUTES), needed),
            ("verbs", len(VERBS), 1),
            ("paraphrases", PATTERNS, 1),
        ):
            if not fewest <= getattr(self, key) <= words:
                refuse(key, f"use {fewest} to {words} with the other settings as they are")

    def _statements(self) -> int:
        """The most predicates that one planted theory can need."""
        deepest = max(self.depths)
        chains = 3 * (self.body + deepest) + 1
        return self.groups * chains + (0 if self.shape == "shared" else 2 * self.distractors)
