"""The schema: every key of `python -m fal.train`, its type, default and source."""

from dataclasses import dataclass, field

from common.errors import UserError
from common.fields import UNHASHED
from common.run.schema import RunConfig
from fal.adversary.config import AttackConfig, Kind, Loss, Norm, Start
from fal.flower.config import Engine, EngineConfig
from fal.images.config import DataConfig
from fal.networks.config import ModelConfig
from fal.settings import FederationConfig, MethodConfig, Objective, Optimiser, OptimiserConfig, Training
from fal.sharing.config import PartitionConfig
from fal.theory_config import TheoryConfig
from fal.toy_config import ToyConfig
from fal.trust import Aggregator, AggregatorConfig, ByzantineConfig


@dataclass
class EvaluationConfig:
    """What the dev and test splits are attacked by, and how much of it."""

    eps: float | None = None
    """Radius; null is that of training, `attack.eps`."""
    steps: int | None = None
    """Of PGD and of CW, each a quarter of the radius long; null is 20, or those of training if they are more."""
    restarts: int = 1
    aa_lite: bool = True
    """Also the ensemble of attacks, by which an image is lost if any of them fools the model."""
    dev: int = 0
    """Images of the dev split that select, the first ones; 0 takes all."""
    recent: int = 5
    """Last rounds whose mean is reported beside the best and the last one."""
    batch: int = 500
    """Images at once."""
    confidence: float = 0.95
    patience: int = 0
    """Stop after so many dev evaluations without improvement; 0 never."""
    allow_weaker: bool = False
    """Attack less at test time than in training, which makes a model look better than it is."""
    sanity: bool = field(default=True, metadata=UNHASHED)
    """Check that the attacks attack; what fails is said in the log."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        for key, least in {"steps": 1, "restarts": 1, "dev": 0, "recent": 1, "batch": 1, "patience": 0}.items():
            if (value := getattr(self, key)) is not None and value < least:
                raise UserError(f"evaluation.{key}={getattr(self, key)}: use {least} or more")
        if not 0 < self.confidence < 1:
            raise UserError(f"evaluation.confidence={self.confidence}: it is a probability; use 0.95, say")
        if self.eps is not None and not self.eps > 0:
            raise UserError(f"evaluation.eps={self.eps}: use a radius above 0; natural accuracy is always reported")


@dataclass
class TrainConfig(RunConfig):
    """Everything the commands read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    byzantine: ByzantineConfig = field(default_factory=ByzantineConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig, metadata=UNHASHED)

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: an attack that is not for these data, or evaluation attacks less than training does.
        """
        self._check_attack()
        self._check_training()
        if self.method.objective is Objective.clean or self.evaluation.allow_weaker:
            return
        for key in ("eps", "steps", "restarts"):
            asked, trained = getattr(self.evaluation, key), getattr(self.attack, key)
            if asked is not None and asked < trained:
                raise UserError(
                    f"evaluation.{key}={asked} with attack.{key}={trained}: the test would attack less than training "
                    f"did; use evaluation.{key}={trained} or more, or evaluation.allow_weaker=true"
                )

    def _check_training(self) -> None:
        training, free = self.method.training, self.method.objective is Objective.free
        if training is not Training.federated and self.engine.name is not Engine.inprocess:
            raise UserError(f"engine={self.engine.name} with method.training={training}: use engine=inprocess")
        idle = {
            "optimiser": self.optimiser.name is not Optimiser.fedavg, "method.slack": self.method.slack,
            "aggregator": self.aggregator.name is not Aggregator.mean, "method.eta_global": self.method.eta_global != 1,
            "byzantine": self.byzantine.clients > 0,
        }  # fmt: skip
        if training is Training.local and (keys := [key for key, on in idle.items() if on]):
            raise UserError(
                f"{', '.join(keys)} with method.training=local: nothing is exchanged, so it changes nothing; leave it"
            )
        if free and (self.attack.kind is not Kind.fgsm or self.attack.start is not Start.none):
            raise UserError(
                f"attack.kind={self.attack.kind}, attack.start={self.attack.start} with method.objective=free: its "
                "points begin where they are and climb one step at a time; use attack.kind=fgsm, attack.steps=1, "
                "attack.start=none"
            )

    def _check_attack(self) -> None:
        attack, eps = self.attack, self.evaluation.eps
        if attack.norm is Norm.cap:
            raise UserError("attack.norm=cap: it is for the inputs of fal.theory; use linf or l2")
        if attack.loss is Loss.targeted_dlr:
            raise UserError("attack.loss=targeted_dlr in training: it is for test time; use ce, cw, dlr or kl")
        if attack.start in (Start.blocks, Start.patch) and self.data.source == "clusters":
            raise UserError(
                f"attack.start={attack.start} with data.source=clusters: it is for images; use start=random"
            )
        if eps is not None and eps > 1 and attack.norm is Norm.linf:
            raise UserError(
                f"evaluation.eps={eps:g} with attack.norm=linf: pixels go from 0 to 1, so use a value up to 1; {eps:g} "
                f"of 255 is evaluation.eps={eps / 255:.6g}"
            )


SCHEMAS = {"train": TrainConfig, "theory": TheoryConfig, "toy": ToyConfig}
"""Command that makes runs -> what they are configured by."""
