"""Keys of the theorem's problem, network, adversary and algorithm (fact sheet, sections 1 and 2)."""

from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import UserError
from common.fields import HASHED_IF_SET


class AdversaryName(StrEnum):
    """What moves a point within its cap."""

    none = "none"
    exact = "exact"
    """The exact maximiser on the arc (d = 3)."""
    grid = "grid"
    """The worst of a few angles (d = 3)."""
    fgsm = "fgsm"
    """One step to the edge of the cap."""
    pgd = "pgd"


class LocalRate(StrEnum):
    """How eta_local follows from the rest; eta_global then follows from the step e."""

    paper = "paper"
    """1 / K (theorem)."""
    width = "width"
    """width_factor m^(-1/3) / K: the local pass stays in the regime where f and g agree (section 1.7, caveat 4)."""
    measured = "measured"
    """Begins as `width`, then keeps the measured local drift at `drift`."""


class Refresh(StrEnum):
    """How often points are attacked anew (section 1.5)."""

    step = "step"
    round = "round"


@dataclass
class ProblemConfig:
    """Points of X, who holds them, and how far they may be moved."""

    dim: int = 3
    """d; 3 makes X a circle, on which the worst case is known exactly."""
    points: int = 8
    """n = NJ; on the circle an even number, labels alternate."""
    turn: float | None = None
    """d = 3: neighbours are so much of a full turn apart; null spreads the points evenly."""
    delta: float = 0.6
    """d > 3: smallest distance of two points."""
    rho: float = 0.1
    """Radius of the adversary."""
    clients: int = 4
    """N."""
    one_label: float = 0.0
    """Share of the clients that hold points of one label only."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        if self.dim < 3:
            raise UserError(f"problem.dim={self.dim}: X needs 3 dimensions or more")
        if self.rho < 0:
            raise UserError(f"problem.rho={self.rho}: a radius is 0 (no adversary) or more")
        if not 0 <= self.one_label <= 1:
            raise UserError(f"problem.one_label={self.one_label}: use a share from 0 to 1")


@dataclass
class NetworkConfig:
    """The theory network and its loss."""

    width: int = 1024
    """m."""
    bend: float = 0.0
    """0: absolute loss; above it, where the Huber loss becomes linear."""
    pseudo: bool = field(default=False, metadata=HASHED_IF_SET)
    """Train the pseudo-network in its place, as the theorem's online argument does (section 1.6)."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        if self.width < 1 or self.bend < 0:
            raise UserError(f"network.width={self.width}, network.bend={self.bend}: use 1 or more, and 0 or more")


@dataclass
class AdversaryConfig:
    """The adversary of the training."""

    name: AdversaryName = AdversaryName.exact
    angles: int = 9
    """Of `grid`."""
    steps: int = 7
    """Of `pgd`, each 2.5 rho / steps long (section 2.4)."""
    restarts: int = 1
    """Of `pgd`."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        for key in ("angles", "steps", "restarts"):
            if getattr(self, key) < 1:
                raise UserError(f"adversary.{key}={getattr(self, key)}: use 1 or more")


@dataclass
class FederatedConfig:
    """The algorithm of section 1.5."""

    rounds: int = 400
    """T."""
    local_steps: int = 1
    """K."""
    step: float = 3.2
    """e = eta_global eta_local K m^(1/3), the step in coordinates without width (section 2.1)."""
    local_rate: LocalRate = LocalRate.paper
    width_factor: float = 0.1
    """c of the rule `width`."""
    drift: float = 0.05
    """What the rule `measured` keeps the local drift at."""
    refresh: Refresh = Refresh.step
    every: int = 5
    """Rounds from one record to the next."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        for key in ("rounds", "local_steps", "every"):
            if getattr(self, key) < 1:
                raise UserError(f"federated.{key}={getattr(self, key)}: use 1 or more")
        for key in ("step", "width_factor", "drift"):
            if getattr(self, key) <= 0:
                raise UserError(f"federated.{key}={getattr(self, key)}: use a number above 0")
