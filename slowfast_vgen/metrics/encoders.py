"""The small networks that stand in for ResNet-18 and I3D, and the inverse dynamics: each is trained on the training
world, then frozen.

All take frames as floats from 0 to 1 with the colours last. Their sizes follow from the frames: sides are halved until
the shorter one has four pixels or fewer.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 4
"""Pixels of the shorter side at which halving ends."""
CORRUPTIONS = ("none", "noise", "blur", "splice")
"""What the motion encoder learns to tell of a clip's appearance."""


def halvings(height: int, width: int) -> int:
    """How often the sides are halved."""
    found, side = 0, min(height, width)
    while side > SMALLEST:
        found, side = found + 1, (side + 1) // 2
    return max(found, 1)


class PlaceEncoder(nn.Module):
    """Features of single frames [n, height, width, 3] by which frames of one place are alike (SRC-world)."""

    def __init__(self, height: int, width: int, features: int = 32, channels: int = 16) -> None:
        super().__init__()
        count = halvings(height, width)
        widths = [channels * 2 ** min(level, 2) for level in range(count + 1)]
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.halving = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        for _ in range(count):
            height, width = (height + 1) // 2, (width + 1) // 2
        self.last = nn.Linear(widths[-1] * height * width, features)

    def maps(self, frames: Tensor) -> list[Tensor]:
        """The feature maps [n, channels, height, width] of every level, the finest first."""
        found = [F.gelu(self.first(2 * frames.movedim(-1, 1) - 1))]
        for layer in self.halving:
            found.append(F.gelu(layer(found[-1])))
        return found

    def forward(self, frames: Tensor) -> Tensor:
        """Features [n, features]."""
        found: Tensor = self.last(self.maps(frames)[-1].flatten(1))
        return found


class Told(NamedTuple):
    """Logits of what the motion encoder is asked of clips."""

    action: Tensor
    shuffled: Tensor
    corruption: Tensor
    look: Tensor
    """Of a world without a catalogue: one, which says nothing."""


class MotionEncoder(nn.Module):
    """Features of clips [n, f, height, width, 3]: convolutions over time and space, mean over both (FVD-world)."""

    def __init__(self, height: int, width: int, actions: int, looks: int, features: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level in range(halvings(height, width) + 1):
            after = features if level else features // 2
            layers += [nn.Conv3d(before, after, 3, stride=(1, 2, 2) if level else 1, padding=1), nn.GELU()]
            before = after
        self.body = nn.Sequential(*layers, nn.Conv3d(before, features, 3, padding=1), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(features, count) for count in (actions, 2, len(CORRUPTIONS), looks))

    def forward(self, clips: Tensor) -> Tensor:
        """Features [n, features]."""
        found: Tensor = self.body(2 * clips.movedim(-1, 1) - 1).mean((2, 3, 4))
        return found

    def told(self, clips: Tensor) -> Told:
        """The answers to the tasks it is trained on."""
        features = self(clips)
        return Told(*(head(features) for head in self.heads))


class InverseDynamics(nn.Module):
    """Which action leads from one frame to the next: four convolutions of 3 by 3 with residuals, mean, two layers.

    The form of UniPi's inverse dynamics, on two frames side by side in the channels.
    """

    def __init__(self, height: int, width: int, actions: int, channels: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.halved = min(halvings(height, width), 3)
        self.first = nn.Conv2d(6, channels, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.answer = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, actions))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Logits [n, actions] of frames [n, height, width, 3]."""
        x = F.gelu(self.first(2 * torch.cat([before, after], -1).movedim(-1, 1) - 1))
        for level, layer in enumerate(self.rest):
            if level < self.halved:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            x = x + F.gelu(layer(x))
        found: Tensor = self.answer(x.mean((2, 3)))
        return found
