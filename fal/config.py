"""The schema: every key of the commands, its type, default and source."""

from dataclasses import dataclass, field

from common.run.schema import RunConfig
from fal.images.config import DataConfig
from fal.networks.config import ModelConfig
from fal.sharing.config import PartitionConfig


@dataclass
class AttackConfig:
    """The adversary in training."""

    eps: float = 0.1


@dataclass
class FederationConfig:
    """Rounds and who takes part."""

    batch: int = 32


@dataclass
class TrainConfig(RunConfig):
    """Everything the commands read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)


SCHEMAS = {"train": TrainConfig}
"""Command that makes runs -> what they are configured by."""
