"""Keys of methods, optimisers and rounds (no torch here: `--help` and `--cfg job` read this file)."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED


class Objective(StrEnum):
    """What a client minimises (`fal.methods`)."""

    clean = "clean"
    adversarial = "adversarial"
    calibrated = "calibrated"
    mixed = "mixed"
    trades = "trades"
    mart = "mart"
    dbfat = "dbfat"
    free = "free"


class Refresh(StrEnum):
    """When points are attacked anew: at every local step, or once a round at the global weights (sheet, 1.5)."""

    step = "step"
    round = "round"


class Form(StrEnum):
    """Of SFAT's weights."""

    published = "published"
    """They sum to 1."""
    released = "released"
    """As the released code adds them up: less than 1 whenever the first client is not the one that is favoured."""


class Training(StrEnum):
    """Where models are trained: in a federation, or at one of the two ends that it is compared with."""

    federated = "federated"
    centralised = "centralised"
    """All clients' items at one place, in as many local steps as all of them take."""
    local = "local"
    """Every client by itself; nothing is exchanged, and what is reported are means over their models."""


OWNERS = {
    "fraction": {Objective.adversarial},
    "scale": {Objective.calibrated},
    "adversarial_share": {Objective.mixed},
    "able": {Objective.mixed},
    "beta": {Objective.trades, Objective.mart, Objective.dbfat},
    "gamma": {Objective.dbfat},
    "replays": {Objective.free},
}
"""Key of `method` -> objectives that read it."""
OPTIONAL = ("fraction", "able")
"""Those of them that may be null."""
SLACK = ("alpha", "favoured", "form")
"""Keys of `method` that belong to SFAT's weights."""


@dataclass
class MethodConfig:
    """One row of the tables. A key that is null has no meaning for the method."""

    name: str = "fal"
    title: str = "FAL"
    objective: Objective = Objective.adversarial
    eta_global: float = 1.0
    """Server step: U <- U + eta_global * mean of the clients' updates."""
    eta_local: float | None = None
    """Local learning rate; null is `optimiser.lr`."""
    refresh: Refresh = Refresh.step
    batch_statistics: bool = False
    """In training attack the network as it trains, with batch norm of the batch; false attacks it as it predicts."""
    slack: bool = False
    """SFAT's weights of clients."""
    fraction: float | None = None
    """Share of a batch that is attacked; null is all of it."""
    scale: float | None = None
    """CalFAT: factor of the logits before the log-prior is added."""
    adversarial_share: float | None = None
    """Weight of the attacked batch beside the clean one."""
    able: float | None = field(default=None, metadata=HASHED_IF_SET)
    """FedRBN: share of the clients that can afford attacks, the others train on clean points. Batch norm then has
    statistics of its own for attacked points, which the able propagate to the others. Null: all are, with one set."""
    beta: float | None = None
    """Weight of the divergence term of TRADES, MART and DBFAT."""
    gamma: float | None = field(default=None, metadata=HASHED_IF_SET)
    """DBFAT: weight of the divergence from the global model's predictions."""
    replays: int | None = field(default=None, metadata=HASHED_IF_SET)
    """Free training: how often a batch is taken in a row; each time the points climb by one step, too."""
    alpha: float | None = None
    """SFAT: the paper's alpha; favoured clients weigh (1 + alpha) / (1 - alpha)."""
    favoured: int | None = None
    """SFAT: how many clients, those with the smallest adversarial loss."""
    form: Form | None = None
    training: Training = field(default=Training.federated, metadata=HASHED_IF_SET)
    early_exit: bool = field(default=False, metadata=HASHED_IF_SET)
    """In training an item leaves the attack as soon as it is misclassified, with the point that it has come to."""

    def __post_init__(self) -> None:
        """Refuse keys of other methods and values out of range.

        Raises:
            UserError: names the key, the value and the way out.
        """
        for key, owners in OWNERS.items():
            self._check_owned(key, self.objective in owners, f"method.objective={self.objective}")
        for key in SLACK:
            self._check_owned(key, self.slack, f"method.slack={str(self.slack).lower()}")
        if self.alpha is not None and not 0 <= self.alpha < 1:
            alpha = (self.alpha - 1) / (self.alpha + 1)
            hint = f"; a flag {self.alpha:g} of the released code is alpha={alpha:.4f}" if self.alpha > 1 else ""
            raise UserError(
                f"method.alpha={self.alpha:g}: the paper's alpha lies in (0, 1) and the weight is "
                f"(1 + alpha) / (1 - alpha){hint}"
            )
        for key, what in (("favoured", "client"), ("replays", "step")):
            if (count := getattr(self, key)) is not None and count < 1:
                raise UserError(f"method.{key}={count}: use 1 {what} or more")
        for key in ("fraction", "adversarial_share", "able"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"method.{key}={value:g}: it is a share; use 0 to 1")
        for key in ("scale", "eta_global", "eta_local", "beta", "gamma"):
            value = getattr(self, key)
            if value is not None and not 0 < value < inf:
                raise UserError(f"method.{key}={value:g}: use a number above 0")
        self._check_attack()

    def _check_attack(self) -> None:
        if self.early_exit and (self.batch_statistics or self.objective in (Objective.clean, Objective.free)):
            raise UserError(
                f"method.early_exit=true with method.objective={self.objective}, method.batch_statistics="
                f"{str(self.batch_statistics).lower()}: it is for attacks of several steps, on a network that judges "
                "each item by itself; use false"
            )
        if self.objective is Objective.free and (self.refresh is not Refresh.step or self.batch_statistics):
            raise UserError(
                f"method.objective=free with method.refresh={self.refresh}, method.batch_statistics="
                f"{str(self.batch_statistics).lower()}: its points climb with every local step, by the gradient of the "
                "training step; use step and false"
            )

    def _check_owned(self, key: str, owned: bool, owner: str) -> None:
        value = getattr(self, key)
        if value is not None and not owned:
            raise UserError(f"method.{key}={value} with {owner} (method={self.name}), which does not read it; use null")
        if value is None and owned and key not in OPTIONAL:
            raise UserError(f"method.{key}=null with {owner} (method={self.name}), which needs it; give a number")


class Optimiser(StrEnum):
    """How local steps and their aggregate are corrected."""

    fedavg = "fedavg"
    fedprox = "fedprox"
    scaffold = "scaffold"
    fednova = "fednova"
    feddyn = "feddyn"


STATEFUL = (Optimiser.scaffold, Optimiser.feddyn)
"""Those whose clients keep a correction from round to round."""


@dataclass
class OptimiserConfig:
    """The local steps."""

    name: Optimiser = Optimiser.fedavg
    lr: float = 0.01
    decay: float = 1.0
    """Factor of the learning rate from round to round."""
    momentum: float = 0.0
    weight_decay: float = 0.0
    mu: float | None = None
    """FedProx and FedDyn: mu / 2 * squared distance to the global weights is added to the loss."""

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: names the key, the value and the way out.
        """
        if not 0 < self.lr < inf:
            raise UserError(f"optimiser.lr={self.lr:g}: use a number above 0")
        if not 0 < self.decay <= 1:
            raise UserError(f"optimiser.decay={self.decay:g}: it is a factor; use a number above 0, at most 1")
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < inf:
            raise UserError(
                f"optimiser.momentum={self.momentum:g}, optimiser.weight_decay={self.weight_decay:g}: momentum lies in "
                "[0, 1), weight decay is 0 or more"
            )
        if (self.mu is not None) != (self.name in (Optimiser.fedprox, Optimiser.feddyn)):
            raise UserError(
                f"optimiser.mu={self.mu} with optimiser={self.name}: fedprox and feddyn need it, no other reads it"
            )
        if self.mu is not None and not 0 <= self.mu < inf:
            raise UserError(f"optimiser.mu={self.mu:g}: use 0 (plain FedAvg) or more")
        if self.name is Optimiser.feddyn and not self.mu:
            raise UserError("optimiser.mu=0 with optimiser=feddyn, whose server divides by it: use a number above 0")
        if self.name is Optimiser.scaffold and self.momentum:
            raise UserError(
                f"optimiser=scaffold with optimiser.momentum={self.momentum:g}: its variates are means of plain "
                "gradients; use optimiser.momentum=0"
            )


class ClientWeights(StrEnum):
    """What a client counts in the mean."""

    uniform = "uniform"
    """The paper: all the same."""
    size = "size"


@dataclass
class FederationConfig:
    """Rounds and who takes part; the defaults are the paper's but for their number."""

    rounds: int = 100
    batch: int = 0
    """Items of a local step; 0 takes all of a client's. What is left of an epoch's last batch is left out."""
    local_epochs: float = 1.0
    """Passes of a client over its items in a round; a fraction is that share of one, at least one step."""
    local_steps: int = 0
    """The same number of steps for every client in place of passes; 0 counts passes."""
    anneal: float = field(default=1.0, metadata=HASHED_IF_SET)
    """Factor of the local work, passes or steps, every `anneal_every` rounds (FedDynAT)."""
    anneal_every: int = field(default=10, metadata=HASHED_IF_SET)
    weights: ClientWeights = ClientWeights.uniform
    participation: float = 1.0
    """Share of the clients that a round takes."""
    stragglers: float = 0.0
    """Share of the chosen clients that are slow."""
    deadline: float = 1.0
    """Share of its steps that a slow client gets done; without a single one it is left out."""
    dropouts: float = 0.0
    """Chance of a chosen client to send nothing."""
    max_rejected: int = 10
    """Updates of a run that may be rejected (non-finite, misshapen, far too long) before it stops."""
    minimum: int = 0
    """Of a federation over processes: updates that a round needs; 0: of every client that it chose."""
    patience: int = field(default=3, metadata=UNHASHED)
    """Of a federation over processes: how often a round with too few updates is tried again before the run stops."""
    stack: bool = field(default=True, metadata=UNHASHED)
    """Clients at once where `common.engine.plan` finds that it pays; false takes them one by one."""
    compile: bool = field(default=False, metadata=UNHASHED)
    """Fuse the gradients of attacks and local steps (`fal.programs`); the first round then takes seconds longer."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        least = {"rounds": 1, "batch": 0, "local_steps": 0, "max_rejected": 0, "minimum": 0, "patience": 0}
        for key, smallest in {**least, "anneal_every": 1}.items():
            if getattr(self, key) < smallest:
                raise UserError(f"federation.{key}={getattr(self, key)}: use {smallest} or more")
        if not self.local_epochs > 0:
            raise UserError(f"federation.local_epochs={self.local_epochs:g}: use a number above 0")
        if not 0 < self.anneal <= 1:
            raise UserError(f"federation.anneal={self.anneal:g}: it is a factor; use a number above 0, at most 1")
        for key in ("participation", "stragglers", "deadline", "dropouts"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"federation.{key}={getattr(self, key):g}: it is a share; use 0 to 1")
        if self.dropouts == 1:
            raise UserError("federation.dropouts=1: no client would ever send an update; use a chance below 1")

    def steps(self, each: int, number: int, shares: int = 1) -> int:
        """Local steps in round `number`, at least one, at `each` a pass over the items, those of so many clients."""
        left = self.anneal ** ((number - 1) // self.anneal_every)
        return max(1, round((shares * self.local_steps or self.local_epochs * each) * left))

    def extensions(self, optimiser: OptimiserConfig) -> list[str]:
        """What is switched on that the theorem does not cover (sheet, 1.5), in words."""
        found = {
            "minibatches": self.batch > 0,
            "client sampling": self.participation < 1,
            "stragglers": self.stragglers > 0 and self.deadline < 1,
            "drop-outs": self.dropouts > 0,
            "clients weighed by size": self.weights is ClientWeights.size,
            "momentum": optimiser.momentum > 0,
            "a falling learning rate": optimiser.decay < 1,
            "falling local work": self.anneal < 1,
            "weight decay": optimiser.weight_decay > 0,
            str(optimiser.name): optimiser.name is not Optimiser.fedavg,
        }
        return [name for name, on in found.items() if on]
