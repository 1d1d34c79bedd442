"""What all autoencoders share, and the one that is none."""

from __future__ import annotations

import hashlib
from abc import abstractmethod

import torch
from torch import Tensor, nn

COLOURS = 3


class Latents(nn.Module):
    """Frames to latents and back, frame by frame; frozen.

    It is a module so that a run keeps its numbers (`state_dict`) and moves it to a device; it has no forward pass.
    """

    def __init__(self, values: int, height: int, width: int) -> None:
        """`values` numbers at each of `height` x `width` positions."""
        super().__init__()
        self.values, self.height, self.width = values, height, width

    @property
    def size(self) -> int:
        """Latent values a frame."""
        return self.values * self.height * self.width

    @abstractmethod
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [..., height, width, 3] -> float32 [..., values, h, w], about 1 in root mean square."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """[..., values, h, w] -> float32 [..., height, width, 3] in [0, 1]."""

    def digest(self) -> str:
        """A hash of every number that encoding and decoding depend on."""
        found = hashlib.sha256(f"{type(self).__name__} {self.values} {self.height} {self.width}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()[:16]


class Pixels(Latents):
    """The colours themselves, from -1 to 1."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(COLOURS, height, width)

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [..., height, width, 3] -> [..., 3, height, width]."""
        return frames.movedim(-1, -3).float() / 127.5 - 1

    def decode(self, z: Tensor) -> Tensor:
        """[..., 3, height, width] -> [..., height, width, 3]."""
        return ((z.movedim(-3, -1) + 1) / 2).clamp(0, 1)
