"""The networks that are sequences of layers, and the layer that all begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fal.networks.config import ModelConfig, Norm


class Normalise(nn.Module):
    """Takes a fixed mean off every channel and divides by a fixed standard deviation.

    They are settings and no buffers: those of clients are stacked, sent and averaged.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int, dimensions: int) -> None:
        super().__init__()
        shape = (channels, *[1] * (dimensions - 1))
        self.mean, self.std = (torch.tensor(values).expand(channels).reshape(shape) for values in (mean, std))
        self.identity = not any(mean) and all(value == 1 for value in std)

    def forward(self, x: Tensor) -> Tensor:
        if self.identity:
            return x
        return (x - self.mean.to(x.device, x.dtype)) / self.std.to(x.device, x.dtype)


class Pooled(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def norm(config: ModelConfig, channels: int) -> list[nn.Module]:
    """The layer after a convolution, if there is one."""
    if config.norm is Norm.none:
        return []
    return [nn.BatchNorm2d(channels) if config.norm is Norm.batch else nn.GroupNorm(config.groups, channels)]


def linear(widths: Sequence[int]) -> Iterator[nn.Module]:
    """Linear layers with ReLU between them."""
    for place, (wide, narrow) in enumerate(pairwise(widths)):
        if place:
            yield nn.ReLU()
        yield nn.Linear(wide, narrow)


def mlp(config: ModelConfig, size: int, classes: int) -> list[nn.Module]:
    """`size` numbers an item."""
    return [nn.Flatten(), *linear([size, *config.hidden, classes])]


def cnn(config: ModelConfig, channels: int, side: int, classes: int) -> list[nn.Module]:
    """Each convolution halves the side (rounded up)."""
    layers: list[nn.Module] = []
    for own in config.channels:
        layers += [nn.Conv2d(channels, own, 3, stride=2, padding=1), *norm(config, own), nn.ReLU()]
        channels, side = own, (side + 1) // 2
    return [*layers, nn.Flatten(), *linear([channels * side * side, *config.hidden, classes])]


def lenet(config: ModelConfig, channels: int, side: int, classes: int) -> list[nn.Module]:
    """Convolutions keep the side, maxima halve it."""
    layers: list[nn.Module] = []
    for own in config.channels:
        layers += [nn.Conv2d(channels, own, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = own, side // 2
    return [*layers, nn.Flatten(), *linear([channels * side * side, *config.hidden, classes])]


def nin(config: ModelConfig, channels: int, classes: int) -> list[nn.Module]:
    """Three convolutions (5, 5 and 3 by 3), two of 1 by 1 after each; no dropout, so that a step draws nothing."""
    layers: list[nn.Module] = []
    for kernel, own in zip((5, 1, 1, 5, 1, 1, 3, 1), config.channels, strict=True):
        if kernel > 1 and layers:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        layers += [nn.Conv2d(channels, own, kernel, padding=kernel // 2), *norm(config, own), nn.ReLU()]
        channels = own
    return [*layers, nn.Conv2d(channels, classes, 1), Pooled()]
