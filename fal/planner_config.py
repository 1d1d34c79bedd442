"""Every key of `python -m fal.planner`."""

from dataclasses import dataclass, field

from common.errors import UserError
from common.run.schema import LoopConfig, RuntimeConfig
from fal.images.config import DataConfig
from fal.sharing.config import PartitionConfig
from fal.theorem.config import AdversaryConfig, NetworkConfig, ProblemConfig


@dataclass
class PilotConfig:
    """The short run that measures what the theorem only bounds."""

    points: int = 40
    """At most so many, the first ones of each client."""
    rounds: int = 200
    steps: list[float] = field(default_factory=lambda: [0.8, 3.2, 12.8])
    """Values of e that are tried; the one with the smallest loss is kept."""
    seeds: int = 2

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: nothing would be tried.
        """
        if min(self.points, self.rounds, self.seeds) < 1 or not self.steps or min(self.steps) <= 0:
            raise UserError(
                f"pilot.points={self.points}, pilot.rounds={self.rounds}, pilot.seeds={self.seeds}, "
                f"pilot.steps={self.steps}: use 1 or more, and steps above 0"
            )


@dataclass
class PlannerConfig:
    """A data set, the adversary's radius, and the robust loss that is wanted."""

    rho: float = 0.1
    """Euclidean radius on X, where every image has length sqrt(3)/2 beside the last coordinate 1/2."""
    eps: float = 0.5
    """Robust loss (absolute) to reach; the start has 1 with labels 1 and -1, less with more classes."""
    data: DataConfig | None = None
    """Images, as for training; null: the points of `problem`."""
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    """Of images."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    adversary: AdversaryConfig | None = None
    """Null: the exact one on a circle, else PGD-7."""
    local_steps: int = 5
    """K."""
    width_factor: float = 0.1
    """c of eta_local = c m^(-1/3) / K."""
    pilot: PilotConfig = field(default_factory=PilotConfig)
    most_rounds: int = 2000
    """Of the run that checks the plan; 0 leaves it out."""
    seed: int = 0
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Its root is where read images are kept."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        if self.rho <= 0:
            raise UserError(
                f"rho={self.rho}: a radius above 0 is needed; without an adversary nothing is to be planned"
            )
        if self.problem.rho != ProblemConfig.rho:
            raise UserError(
                f"problem.rho={self.problem.rho:g}: the planner's radius is rho; use rho={self.problem.rho:g}"
            )
        if not 0 < self.eps < 1:
            raise UserError(f"eps={self.eps}: no start has a robust loss above 1; use a number between 0 and 1")
        if self.local_steps < 1 or self.width_factor <= 0 or self.most_rounds < 0:
            raise UserError(
                f"local_steps={self.local_steps}, width_factor={self.width_factor}, most_rounds={self.most_rounds}: "
                "use 1 or more, above 0, and 0 (off) or more"
            )
