"""Settings of the kinship stories."""

from dataclasses import dataclass, field

from common.errors import UserError

HOPS = range(2, 11)
"""Facts of a chain."""
HELD_OUT = ("none", "longer", "all")


@dataclass
class ClutrrConfig:
    """What is asked of the test split, and what generated stories look like.

    The path of a story is the sequence of its relation words, such as father-sister. `held_out` says which paths no
    two splits share: `longer` those of three facts and more, so that the 62 compositions of two facts are the building
    blocks known to all (as in the published sets), `all` those of two facts too, `none` no path at all. Stories are
    never shared.
    """

    test_hops: list[int] = field(default_factory=lambda: list(HOPS))
    """Hops of the test split, in equal numbers where it is generated; `data.hops` says those of train and dev."""
    held_out: str = "longer"  # none | longer | all
    persons: int = 20  # "person 1" to this many
    paraphrases: int = 3  # sentences per relation, at most; 1: only "person 3 is a son of person 7"
    set: str = "sg_089907f8"  # with format=clutrr_csv: the folder of the set

    def __post_init__(self) -> None:
        """Refuse values that are no choices.

        Raises:
            UserError: names the key.
        """
        if not self.test_hops or not set(self.test_hops) <= set(HOPS):
            raise UserError(f"data.clutrr.test_hops={self.test_hops}: a list of {HOPS[0]} to {HOPS[-1]}, as in [2, 3]")
        if self.held_out not in HELD_OUT:
            raise UserError(f"data.clutrr.held_out={self.held_out}: use one of {', '.join(HELD_OUT)}")
        if not 1 <= self.paraphrases <= 3:
            raise UserError(f"data.clutrr.paraphrases={self.paraphrases}: use 1 to 3")

    def validate(self, hops: int | None, distractors: str) -> None:
        """Refuse what cannot be generated; `hops` and `distractors` are those of `data`.

        Raises:
            UserError: names the key.
        """
        if hops is None or hops not in HOPS:
            raise UserError(f"data.hops={hops}: facts of a training story; use {HOPS[0]} to {HOPS[-1]}")
        if distractors == "all":
            raise UserError("data.distractors=all: a kinship story has no further sentences; use 0, 2, 4 or 6")
        needed = max(hops, *self.test_hops) + 1 + (int(distractors) + 1 if int(distractors) else 0)
        if self.persons < needed:
            raise UserError(f"data.clutrr.persons={self.persons}: the longest story has {needed} persons; use as many")
