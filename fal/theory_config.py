"""Every key of `python -m fal.theory`; a module of its own, so that the processes of a sweep can import it."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from common.fields import UNHASHED, UNNAMED
from common.run.schema import RunConfig, to_typed
from fal.theorem.config import AdversaryConfig, FederatedConfig, NetworkConfig, ProblemConfig


@dataclass
class StaticConfig:
    """The lemmas that need no training (section 2.3)."""

    dim: int = 6
    points: int = 100
    """Random ones, over which the largest value is taken."""
    gap_at: float = 4.0
    """D of the one-sided gap."""
    flips_at: float = 1.0
    """D of the flips."""


@dataclass
class FitConfig:
    """A straight line through the cells of a table, in logarithms: y ~ x^exponent."""

    y: str = MISSING
    x: str = MISSING
    log_x: bool = True
    """False: y ~ exp(slope x), for an x that may be 0."""
    predicted: float | None = None
    """The exponent that the theory gives."""


@dataclass
class ExponentConfig(FitConfig):
    """A line through some of the cells."""

    where: dict[str, Any] = field(default_factory=dict)
    """Keys of the cells; empty: all of them."""


@dataclass
class ReferenceConfig:
    """A number measured before, against which a cell is held."""

    where: dict[str, Any] = field(default_factory=dict)
    """Keys of the cell."""
    metric: str = MISSING
    value: float = MISSING
    tolerance: float = 0.1
    """Relative."""


@dataclass
class TheoryConfig(RunConfig):
    """What `python -m fal.theory` reads: one table, its cells in `cells` times `grid`."""

    experiment: str = field(default="none", metadata=UNNAMED)
    title: str = field(default="", metadata=UNHASHED)
    static: bool = False
    """The lemmas that need no training, in place of training."""
    seeds: int = 5
    """Networks a cell, of seeds `seed`, `seed` + 1, ...; they train side by side."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    federated: FederatedConfig = field(default_factory=FederatedConfig)
    lemmas: StaticConfig = field(default_factory=StaticConfig)
    comparator_steps: int = 200
    """Subgradient steps to the best fixed U*; 0 leaves the regret out."""
    targets: list[float] = field(default_factory=lambda: [0.5])
    """Robust losses, rounds to which are counted."""
    moments: list[int] = field(default_factory=list)
    """Rounds whose robust loss is a column."""
    cells: list[dict[str, Any]] = field(default_factory=list)
    """Dotted key -> value of each cell; empty: one cell as it is."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> list of values; every cell with every combination."""
    columns: list[str] = field(default_factory=lambda: ["best", "robust"])
    """What the table shows."""
    fits: list[FitConfig] = field(default_factory=list)
    exponents: list[ExponentConfig] = field(default_factory=list, metadata=UNHASHED)
    """As `fits`, each of the cells that it names, and of `robust_at_time_<e t>` besides the columns."""
    references: list[ReferenceConfig] = field(default_factory=list)
    note: str = field(default="", metadata=UNHASHED)
    """Below the table: what the exponents mean, or why there is none."""
    figures: list[str] = field(default_factory=list)
    """Of `fal.theorem.figures`."""
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: no seed, an interval without a probability, or a round that has no record.
        """
        if self.seeds < 1:
            raise UserError(f"seeds={self.seeds}: use 1 or more; intervals need 2")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence}: it is a probability; use 0.95, say")
        rounds, every = self.federated.rounds, self.federated.every
        if any(moment % every or not 0 <= moment <= rounds for moment in self.moments):
            raise UserError(
                f"moments={self.moments} with federated.rounds={rounds}, federated.every={every}: use rounds that have "
                f"a record, multiples of {every} up to {rounds}"
            )


def cells_of(config: TheoryConfig) -> list[tuple[dict[str, Any], TheoryConfig]]:
    """The cells of a table: what each of them changes, and its settings.

    Raises:
        UserError: a key or a value is none of this command's.
    """
    keys = list(config.grid)
    combined = [dict(zip(keys, values, strict=True)) for values in product(*config.grid.values())]
    changes = [{**cell, **more} for cell in config.cells or [{}] for more in combined]
    return [(change, _changed(config, change)) for change in changes]


def _changed(config: TheoryConfig, change: dict[str, Any]) -> TheoryConfig:
    made: Any = OmegaConf.structured(config)
    for key, value in change.items():
        try:
            OmegaConf.update(made, key, value, force_add=False)
        except OmegaConfBaseException as error:
            raise UserError(f"cells or grid: {key}={value}: {str(error).splitlines()[0]}") from error
    return to_typed(made, TheoryConfig)
