"""The published networks that metrics look through, from files of weights that the user has: nothing is downloaded.

Files are safetensors, in which nothing can run. The names are those of torchvision (ResNet-18, AlexNet), lpips (linear
layers) and pytorch-i3d (I3D); what these publish is converted once, by `torch.load(file, map_location="cpu",
weights_only=True)` and `safetensors.torch.save_file`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from common.errors import UserError
from slowfast_vgen.metrics.features import ROWS, as_tensor
from slowfast_vgen.metrics.i3d import FEWEST, I3D

Array = NDArray[np.float64]
Encode = Callable[[ArrayLike], Array]
SIDE = 224
"""Pixels that ResNet-18 and I3D were trained on; frames are scaled to it."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, as torchvision's weights expect them."""
SHORTEST = 64
"""Pixels of a side below which AlexNet has nothing left; smaller frames are enlarged to it."""
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of colours from -1 to 1 (Zhang et al. 2018, their code)."""
UNUSED = ("fc.", "classifier.")
"""How the names of weights begin that no feature needs."""


class Residual(nn.Module):
    """Two convolutions beside a shortcut, as in torchvision's `BasicBlock`."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, after, h / stride, w / stride]."""
        found: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x)
        return found.relu()


class ResNet18(nn.Module):
    """Frames [n, h, w, 3] from 0 to 1 -> what is pooled before the classes [n, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False), 1):
            blocks = nn.Sequential(Residual(before, after, 1 if number == 1 else 2), Residual(after, after, 1))
            self.add_module(f"layer{number}", blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """Features [n, 512]."""
        x = (_scaled(frames.movedim(-1, 1)) - _colours(MEAN)) / _colours(SPREAD)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))


class AlexNet(nn.Module):
    """The five feature maps of AlexNet's convolutions, under torchvision's names."""

    KINDS = (
        (0, 3, 64, 11, 4, 2),
        (3, 64, 192, 5, 1, 2),
        (6, 192, 384, 3, 1, 1),
        (8, 384, 256, 3, 1, 1),
        (10, 256, 256, 3, 1, 1),
    )
    """Name, channels before and after, window, stride and padding of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                str(name): nn.Conv2d(before, after, window, stride, padding)
                for name, before, after, window, stride, padding in self.KINDS
            }
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [n, 3, h, w] -> maps [n, channels, ...], each after its rectifier."""
        found = []
        for place, layer in enumerate(self.features.values()):
            x = F.relu(layer(F.max_pool2d(x, 3, 2) if place in (1, 2) else x))
            found.append(x)
        return found


def resnet18(path: str) -> Encode:
    """Features [n, 512] of frames [n, h, w, 3] for SRC.

    Raises:
        UserError: the file is missing, or holds other weights.
    """
    return _encoder(_filled(ResNet18(), path, "features.resnet18"))


def lpips(trunk: str, heads: str) -> Callable[[ArrayLike, ArrayLike], Array]:
    """LPIPS [n] of two sets of frames [n, h, w, 3], with AlexNet.

    Args:
        trunk: torchvision's AlexNet.
        heads: the linear layers of the package lpips (`alex.pth`, converted).

    Raises:
        UserError: a file is missing, or holds other weights.
    """
    network = _filled(AlexNet(), trunk, "features.alexnet")
    names = [f"lin{place}.model.1" for place in range(5)]
    layers = nn.ModuleDict(
        {
            name.replace(".", "_"): nn.Conv2d(kind[2], 1, 1, bias=False)
            for name, kind in zip(names, AlexNet.KINDS, strict=True)
        }
    )
    renamed = {f"{name}.weight": f"{name.replace('.', '_')}.weight" for name in names}
    weights = _filled(layers, heads, "features.lpips", renamed)

    @torch.no_grad()
    def distance(made: ArrayLike, truth: ArrayLike) -> Array:
        found = []
        for start in range(0, len(np.asarray(made)), ROWS):
            pair = [_levels(network, np.asarray(side)[start : start + ROWS]) for side in (made, truth)]
            levels = zip(*pair, weights.children(), strict=True)
            found.append(torch.stack([layer((one - two) ** 2).mean((1, 2, 3)) for one, two, layer in levels]).sum(0))
        return torch.cat(found).double().numpy()

    return distance


def i3d(path: str) -> Encode:
    """Logits [n, 400] of clips [n, f, h, w, 3] with `FEWEST` frames at least, for FVD.

    Raises:
        UserError: the file is missing, or holds other weights.
    """
    network = _filled(I3D(), path, "features.i3d")

    @torch.no_grad()
    def encode(clips: ArrayLike) -> Array:
        given = np.asarray(clips)
        if given.shape[1] < FEWEST:
            raise UserError(
                f"features.i3d={path}: clips of {given.shape[1]} frames, I3D needs {FEWEST}; use longer chunks, or "
                "null for FVD-world"
            )
        found = []
        for clip in given:
            video = 2 * _scaled(as_tensor(clip).movedim(-1, 1)).movedim(0, 1)[None] - 1
            found.append(network(video))
        return torch.cat(found).double().numpy()

    return encode


def _levels(network: nn.Module, frames: NDArray[np.generic]) -> list[Tensor]:
    images = 2 * as_tensor(frames).movedim(-1, 1) - 1
    if (short := min(images.shape[2:])) < SHORTEST:
        size = [-(-side * SHORTEST // short) for side in images.shape[2:]]
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    maps = network((images - _colours(LPIPS_SHIFT)) / _colours(LPIPS_SCALE))
    return [level / (level.square().sum(1, keepdim=True).sqrt() + 1e-10) for level in maps]


def _scaled(images: Tensor) -> Tensor:
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


def _colours(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _encoder(network: nn.Module) -> Encode:
    @torch.no_grad()
    def encode(frames: ArrayLike) -> Array:
        given = np.asarray(frames)
        parts = [network(as_tensor(given[start : start + ROWS])) for start in range(0, len(given), ROWS)]
        return torch.cat(parts).double().numpy()

    return encode


def _filled(network: nn.Module, path: str, key: str, renamed: dict[str, str] | None = None) -> nn.Module:
    """The network with the weights of a file, frozen."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = _present(path, key)
    try:
        found = load_file(file)
        wanted = {(renamed or {}).get(name, name): value for name, value in found.items()}
        used = {name: value for name, value in wanted.items() if not name.startswith(UNUSED)}
        lacking, other = network.load_state_dict(used, strict=False)
        lacking = [name for name in lacking if not name.endswith(".num_batches_tracked")]  # older files have none
        if lacking or other:
            raise ValueError(f"it lacks {lacking[:3]} and has {other[:3]}")
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{key}={path}: not the weights of {type(network).__name__} ({said}); give them as "
            "safetensors (slowfast_vgen/metrics/trunks.py says from where), or null for the world's own encoder"
        ) from error
    return network.requires_grad_(False).eval()


def _present(path: str, key: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{key}={path}: no such file; correct the path, or give null for the world's own encoder")
    return file
