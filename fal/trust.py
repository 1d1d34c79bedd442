"""Keys of aggregation rules, and of the Byzantine clients that robust ones are for (no torch here)."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from common.errors import UserError


class Aggregator(StrEnum):
    """How the server makes one update of many."""

    mean = "mean"
    median = "median"
    trimmed_mean = "trimmed_mean"
    krum = "krum"
    multi_krum = "multi_krum"
    geometric_median = "geometric_median"
    clipping = "clipping"


USES = {
    "trimmed": {Aggregator.trimmed_mean},
    "byzantine": {Aggregator.krum, Aggregator.multi_krum},
    "kept": {Aggregator.multi_krum},
    "iterations": {Aggregator.geometric_median},
    "norm": {Aggregator.clipping},
}
"""Key of `aggregator` -> rules that read it."""


@dataclass
class AggregatorConfig:
    """The server's rule. A key that is null has no meaning for it."""

    name: Aggregator = Aggregator.mean
    trimmed: int | None = None
    """Values cut off at either end of every coordinate."""
    byzantine: int | None = None
    """Krum's f: how many clients may be bad."""
    kept: int | None = None
    """Multi-Krum: how many updates are averaged."""
    iterations: int | None = None
    """Of Weiszfeld's algorithm."""
    norm: float | None = None
    """Longer updates are scaled down to it."""

    def __post_init__(self) -> None:
        """Refuse keys of other rules.

        Raises:
            UserError: a key is missing, out of range, or read by another rule.
        """
        for key, users in USES.items():
            value, used = getattr(self, key), self.name in users
            if (value is not None) != used:
                need = "needs it" if used else "does not read it; use null"
                raise UserError(f"aggregator.{key}={value} with aggregator={self.name}, which {need}")
            least = 1 if key in ("kept", "iterations") else 0
            if value is not None and key != "norm" and value < least:
                raise UserError(f"aggregator.{key}={value}: use {least} or more")
        if self.norm is not None and not 0 < self.norm < inf:
            raise UserError(f"aggregator.norm={self.norm:g}: use a length above 0; longer updates are scaled to it")


class Fraud(StrEnum):
    """What Byzantine clients do."""

    none = "none"
    sign_flip = "sign_flip"
    """Send `scale` times the negative of their update."""
    noise = "noise"
    """Send normal noise, `scale` times as long as their update."""
    alie = "alie"
    """Send mean - z * deviation of the honest updates: A Little Is Enough (Baruch et al., arXiv 1902.06635)."""
    label_flip = "label_flip"
    """Train on label C - 1 - y in place of y."""


@dataclass
class ByzantineConfig:
    """Clients that do not do as they are told."""

    name: Fraud = Fraud.none
    clients: int = 0
    """How many; which ones, the seed says."""
    scale: float = 1.0
    claim: float | None = None
    """The adversarial loss that they claim, to win SFAT's weight; null is what they found."""

    def __post_init__(self) -> None:
        """Refuse clients who do nothing, and deeds of nobody.

        Raises:
            UserError: kind and number contradict each other, or the scale is none.
        """
        does = self.name is not Fraud.none or self.claim is not None
        if self.clients < 0 or does != (self.clients > 0):
            raise UserError(
                f"byzantine.clients={self.clients} with byzantine={self.name}: use byzantine=none with 0 clients, any "
                "other with 1 or more"
            )
        if not 0 < self.scale < inf:
            raise UserError(f"byzantine.scale={self.scale:g}: use a number above 0")
