"""Every key of `python -m fal.toy`, the toy experiment (fact sheet, section 3); [?]: the sheet leaves it open."""

from dataclasses import dataclass, field

from common.errors import UserError
from common.fields import UNNAMED
from common.run.schema import RunConfig
from fal.images.config import ClustersConfig
from fal.theory_config import ReferenceConfig


@dataclass
class StableConfig:
    """The search for the largest rate at which training does not diverge, by bisection of its logarithm."""

    low: float = 1e-3
    high: float = 100.0
    halvings: int = 8
    """0 leaves the search out."""
    blow_up: float = 2.0
    """Training diverges if the adversarial loss of a round is so many times that of the first, or is not finite."""


@dataclass
class ToyConfig(RunConfig):
    """Two classes of two normal clusters, a network of one hidden layer, four clients."""

    experiment: str = field(default="toy", metadata=UNNAMED)
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    """[?] centres; `clusters.scale` is set by `scales`."""
    scales: list[float] = field(default_factory=lambda: [2.5, 1.5, 0.85])
    """Levels of separability: large, medium, small."""
    rates: list[float] = field(default_factory=lambda: [1e-5, 1e-3])
    train: int = 800
    """400 of each class."""
    test: int = 200
    hidden: int = 128
    clients: int = 4
    batch: int = 50
    local_steps: int = 4
    """[?] One epoch of 200 points; 1 is one step."""
    rounds: int = 100
    summed: bool = False
    """[?] Losses are summed over a batch instead of averaged."""
    init_scale: float = 1.0
    """[?] Times torch's default, uniform within 1 / sqrt(inputs)."""
    eps: float = 8 / 255
    """Half the side of the box around a point."""
    attack_steps: int = 7
    step_size: float = 2 / 255
    moments: list[int] = field(default_factory=lambda: [1, 10, 30, 100])
    """Rounds whose accuracies are columns."""
    seeds: int = 3
    stable: StableConfig = field(default_factory=StableConfig)
    references: list[ReferenceConfig] = field(default_factory=list)
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        for key in ("train", "test", "hidden", "clients", "batch", "local_steps", "rounds", "attack_steps", "seeds"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}={getattr(self, key)}: use 1 or more")
        if self.train % self.clients or self.batch > self.train // self.clients:
            raise UserError(
                f"train={self.train}, clients={self.clients}, batch={self.batch}: every client has as many points, and "
                "a batch no more than that"
            )
        if max(self.moments, default=1) > self.rounds or min(self.moments, default=1) < 1:
            raise UserError(f"moments={self.moments} with rounds={self.rounds}: use rounds from 1 to {self.rounds}")
        if not self.scales or min(self.scales) <= 0 or not self.rates or min(self.rates) <= 0:
            raise UserError(f"scales={self.scales}, rates={self.rates}: use one or more, all above 0")
