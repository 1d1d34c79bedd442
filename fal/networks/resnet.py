"""ResNet-18 for images of 32 by 32."""

from __future__ import annotations

from torch import Tensor, nn

from fal.networks.config import ModelConfig
from fal.networks.small import Pooled, norm

DEPTH = 2
"""Blocks of a group."""


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution of 1 by 1 where width or side change."""

    def __init__(self, config: ModelConfig, channels: int, own: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, own, 3, stride=stride, padding=1, bias=False),
            *norm(config, own),
            nn.ReLU(),
            nn.Conv2d(own, own, 3, padding=1, bias=False),
            *norm(config, own),
        )
        same = stride == 1 and channels == own
        self.shortcut = nn.Sequential(
            *([] if same else [nn.Conv2d(channels, own, 1, stride=stride, bias=False), *norm(config, own)])
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def resnet18(config: ModelConfig, channels: int, classes: int) -> list[nn.Module]:
    """Eight blocks in four groups, each but the first of half the side."""
    own = config.channels[0]
    layers = [nn.Conv2d(channels, own, 3, padding=1, bias=False), *norm(config, own), nn.ReLU()]
    for group, width in enumerate(config.channels):
        for block in range(DEPTH):
            layers.append(Block(config, own, width, 2 if group and not block else 1))
            own = width
    return [*layers, Pooled(), nn.Linear(own, classes)]
