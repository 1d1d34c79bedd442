"""I3D (Carreira and Zisserman 2017) for FVD: Inception with kernels through time, under the names of pytorch-i3d.

Windows are padded as TensorFlow pads (`SAME`): as many outputs as strides fit, the odd pixel at the end.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 400
"""Of Kinetics."""
FEWEST = 9
"""Frames that leave two for the last pooling."""
MIXED: dict[str, tuple[int, tuple[int, ...]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Module -> channels before it and in its six convolutions."""
POOLED = {"Mixed_4b": (3, 3, 3), "Mixed_5b": (2, 2, 2)}
"""Module -> window of the pooling before it, which halves time and space."""


class Unit(nn.Module):
    """A convolution, batch norm and rectifier."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, f, h, w] -> [n, after, ...], sides divided by the stride."""
        padded = same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(padded)))


class Mixed(nn.Module):
    """An Inception module: four branches, joined."""

    def __init__(self, before: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit(before, widths[0])
        self.b1a, self.b1b = Unit(before, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(before, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(before, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, f, h, w] -> [n, all last widths, f, h, w]."""
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class Logits(nn.Module):
    """The last layer, without norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1024, f, 1, 1] -> [n, 400], the mean over time."""
        found: Tensor = self.conv3d(x).mean((2, 3, 4))
        return found


class I3D(nn.Module):
    """Clips [n, 3, f, 224, 224] from -1 to 1 -> logits [n, 400]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (before, widths) in MIXED.items():
            self.add_module(name, Mixed(before, widths))
        self.logits = Logits()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, 400]."""
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name in POOLED:
                x = pool(x, POOLED[name], (2, 2, 2))
            x = self.get_submodule(name)(x)
        found: Tensor = self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return found


def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The largest value of each window; x is not negative, so zeros around it change none."""
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


def same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around [n, c, f, h, w] until each side gives side / stride windows, rounded up."""
    around: list[int] = []
    for side, window, step in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max(window - (side % step or step), 0)
        around = [missing // 2, missing - missing // 2, *around]  # the last side first, as F.pad reads it
    return F.pad(x, around)
