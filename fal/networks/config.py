"""The keys below `model`."""

from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import UserError


class Kind(StrEnum):
    """Which network."""

    mlp = "mlp"
    cnn = "cnn"
    """Convolutions of 3 by 3 with stride 2, then linear layers."""
    lenet = "lenet"
    """Two convolutions of 5 by 5, each with a maximum over 2 by 2, then linear layers."""
    nin = "nin"
    """Network in network (Lin et al. 2014), as SFAT's default."""
    resnet18 = "resnet18"
    """In the form for CIFAR (He et al. 2016): a first convolution of 3 by 3 with stride 1, no pooling before blocks."""


class Norm(StrEnum):
    """What normalises activations."""

    none = "none"
    group = "group"
    batch = "batch"


CHANNELS = {Kind.mlp: 0, Kind.lenet: 2, Kind.nin: 8, Kind.resnet18: 4}
"""How many numbers `model.channels` has; a cnn one or more."""
NORMS = {
    Kind.mlp: (Norm.none,),
    Kind.cnn: tuple(Norm),
    Kind.lenet: (Norm.none,),
    Kind.nin: tuple(Norm),
    Kind.resnet18: (Norm.group, Norm.batch),
}


@dataclass
class ModelConfig:
    """The network that clients train together: conf/fal/model."""

    kind: Kind = Kind.cnn
    channels: list[int] = field(default_factory=lambda: [16, 32])
    """Of the convolutions (resnet18: of the four groups of blocks)."""
    hidden: list[int] = field(default_factory=lambda: [64])
    """Widths of linear layers before the last."""
    norm: Norm = Norm.none
    groups: int = 4
    """Of group norm."""
    mean: list[float] = field(default_factory=lambda: [0.0])
    """What the first layer takes off each channel; one number is for all. Attacks see images in [0, 1]."""
    std: list[float] = field(default_factory=lambda: [1.0])
    """And what it divides by then."""

    def __post_init__(self) -> None:
        """Refuse what is no network.

        Raises:
            UserError: widths or norm do not go with the kind.
        """
        wanted = CHANNELS.get(self.kind, max(1, len(self.channels)))
        if len(self.channels) != wanted:
            raise UserError(
                f"model.channels={self.channels} with model.kind={self.kind}: {len(self.channels)} widths; use {wanted}"
            )
        if min([*self.channels, *self.hidden], default=1) < 1:
            raise UserError(f"model.channels={self.channels}, model.hidden={self.hidden}: use widths of 1 or more")
        if self.hidden and self.kind in (Kind.nin, Kind.resnet18):
            raise UserError(
                f"model.hidden={self.hidden} with model.kind={self.kind}: it has no hidden linear layer; use []"
            )
        if self.norm not in NORMS[self.kind]:
            others = [kind for kind, norms in NORMS.items() if self.norm in norms]
            raise UserError(
                f"model.norm={self.norm} with model.kind={self.kind}: use {' or '.join(NORMS[self.kind])}, or another "
                f"network (model.kind={' or '.join(others)})"
            )
        if self.norm is Norm.group and any(width % self.groups for width in self.channels):
            raise UserError(f"model.groups={self.groups}: the widths {self.channels} are no multiples of it")
        if min(self.std, default=0) <= 0 or not self.mean:
            raise UserError(
                f"model.mean={self.mean}, model.std={self.std}: give a mean, and a std above 0, per channel"
            )
