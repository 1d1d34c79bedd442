"""The keys below `partition`."""

from dataclasses import dataclass
from enum import StrEnum

from common.errors import UserError


class Kind(StrEnum):
    """How images are shared out."""

    iid = "iid"
    dirichlet = "dirichlet"
    """Shares of each class over clients from Dirichlet(beta): Hsu et al. 2019; CalFAT with beta 0.1, 10 at least."""
    k_labels = "k_labels"
    """Each client has images of so many classes, and every class as many clients, give or take one."""
    skew = "skew"
    """SFAT: a client keeps a share of its own block of labels and gets equal parts of the rest of each other block."""
    feature_shift = "feature_shift"
    """IID labels; each client's images are turned and brightened in its own way."""
    natural = "natural"
    """A client is one of those whom the images are from."""


OWN = {
    "beta": (Kind.dirichlet,),
    "labels_per_client": (Kind.k_labels,),
    "share": (Kind.skew,),
    "rotation": (Kind.feature_shift,),
    "intensity": (Kind.feature_shift,),
}
"""Key -> the kinds that read it."""


@dataclass
class PartitionConfig:
    """Images of clients: conf/fal/partition."""

    kind: Kind = Kind.iid
    clients: int = 5
    validation: int = 0
    """Further clients of the same kind that never train: their images are the dev split, which selects, in place of
    those that `data.validation` cuts off."""
    size: int | None = None
    """Exactly so many images of each client (the theorem's equal J); null shares out all."""
    minimum: int = 1
    """Fewest images of a client."""
    beta: float = 0.5
    labels_per_client: int = 2
    share: float = 0.92
    """SFAT's: with five clients 2 % of every other block."""
    rotation: float = 30.0
    """Degrees: clients' angles lie evenly from minus to plus this."""
    intensity: float = 0.3
    """Brightness factors lie evenly from 1 - this to 1 + this, and what is brighter than 1 is cut."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, and keys that the kind does not read.

        Raises:
            UserError: a value is out of range, or another kind's.
        """
        defaults = type(self).__dataclass_fields__
        for key, kinds in OWN.items():
            if getattr(self, key) != defaults[key].default and self.kind not in kinds:
                raise UserError(
                    f"partition.{key}={getattr(self, key)} changes nothing with partition.kind={self.kind}: leave it, "
                    f"or use partition={' or '.join(kinds)}"
                )
        for key, least in {"clients": 1, "validation": 0, "size": 1, "minimum": 1, "labels_per_client": 1}.items():
            if (value := getattr(self, key)) is not None and value < least:
                raise UserError(f"partition.{key}={value}: use {least} or more")
        if not self.beta > 0:
            raise UserError(f"partition.beta={self.beta}: use a number above 0; smaller is more uneven")
        if not 0 < self.share <= 1:
            raise UserError(f"partition.share={self.share}: use a share above 0, at most 1")
        if not (0 <= self.rotation <= 180 and 0 <= self.intensity < 1):
            raise UserError(
                f"partition.rotation={self.rotation}, partition.intensity={self.intensity}: use 0 to 180 degrees, and "
                "0 to below 1"
            )

    @property
    def least(self) -> int:
        """Fewest images that a client may get."""
        return max(self.minimum, self.size or 1)
