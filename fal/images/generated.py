"""Images and vectors that need no file: item i of split s is a function of (seed, s, i) alone."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from fal.images.config import ClustersConfig, DataConfig
from fal.images.images import Pixels

FIXED = 6
"""Uniform numbers of a shape, besides those of its noise."""
BACKGROUND, CONTRAST, NOISE = 0.2, 0.5, 0.1


def draws(name: str, split: str, first: int, count: int, numbers: int) -> Tensor:
    """Uniform numbers in [0, 1) [count, numbers], each row a function of (name, split, place) alone."""
    rows = []
    for place in range(first, first + count):
        digest = hashlib.sha256(f"{name}/{split}/{place}".encode()).digest()
        rows.append(torch.rand(numbers, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))))
    return torch.stack(rows) if rows else torch.empty(0, numbers)


def shapes(config: DataConfig, split: str, count: int) -> Pixels:
    """Stripes of several directions, then blobs at several places: half of the classes each, equally many of each.

    A stripe's phase, a blob's place, contrast and noise are drawn. With `writers` each has a brightness of its own.
    """
    side, classes = config.side, config.classes
    u = draws(f"{config.seed}/shapes", split, 0, count, FIXED + side * side)
    labels = torch.arange(count) % classes
    steps = torch.arange(side) - (side - 1) / 2
    across, down = steps[None, None, :], steps[None, :, None]
    striped = (classes + 1) // 2
    turned = (math.pi * labels / striped)[:, None, None]
    along = (across * turned.cos() + down * turned.sin()) / (side / 2) + u[:, 0, None, None]
    stripes = 0.5 + 0.5 * (2 * math.pi * along).sin()
    angle = 2 * math.pi * (labels - striped) / max(1, classes - striped)
    shift = (u[:, 1:3] - 0.5) * side / 8
    x, y = (
        (side / 4 * part + move)[:, None, None] for part, move in zip((angle.cos(), angle.sin()), shift.T, strict=True)
    )
    blobs = (-((across - x) ** 2 + (down - y) ** 2) / (2 * (side / 6) ** 2)).exp()
    owners, light = None, torch.zeros(count)
    if config.writers:
        owners = (u[:, 3] * config.writers).long()
        light = 0.3 * (owners / max(1, config.writers - 1) - 0.5)
    shape = torch.where((labels < striped)[:, None, None], stripes, blobs)
    noise = NOISE * (2 * u[:, FIXED:].reshape(count, side, side) - 1)
    contrast = CONTRAST * (0.8 + 0.4 * u[:, 4, None, None])
    made = BACKGROUND + light[:, None, None] + contrast * shape + noise
    return Pixels(made.clamp(0, 1)[:, None], labels, owners)


def clusters(config: DataConfig, split: str, count: int) -> Pixels:
    """Vectors of the classes' clusters in turn, equally many of each class; some labels are another class's."""
    settings: ClustersConfig = config.clusters
    size = len(settings.means[0][0])
    u = draws(f"{config.seed}/clusters", split, 0, count, 3 + 2 * size).double()
    labels = torch.arange(count) % config.classes
    rows = []
    for label, row in zip(labels.tolist(), u, strict=True):
        centres = torch.tensor(settings.means[label], dtype=torch.double)
        radius = (-2 * (1 - row[3 : 3 + size]).log()).sqrt()  # Box and Muller: normal numbers
        normal = radius * (2 * math.pi * row[3 + size :]).cos()
        rows.append(settings.scale * (centres[int(row[0] * len(centres))] + settings.std * normal))
    x = torch.stack(rows).float() if rows else torch.empty(0, size)
    if split == "train" or settings.flipped_test:
        other = (labels + 1 + (u[:, 2] * (config.classes - 1)).long()) % config.classes
        labels = torch.where(u[:, 1] < settings.flipped, other, labels)
    return Pixels(x, labels)
