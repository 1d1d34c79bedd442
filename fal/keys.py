"""Random numbers as a function of who draws them, when and for what: never of the order in which clients come."""

from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor


@dataclass(frozen=True)
class Key:
    """Of one client in one round; what it draws depends on nothing else."""

    seed: int
    round: int
    client: int | str
    """Its number, or `server`."""

    def generator(self, step: int, what: str) -> torch.Generator:
        """Fresh for every step and purpose."""
        text = f"{self.seed}/{self.round}/{self.client}/{step}/{what}"
        return torch.Generator().manual_seed(crc32(text.encode()))

    def uniform(self, step: int, what: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers in [0, 1) on the CPU, so that every device has the same."""
        return torch.rand(shape, generator=self.generator(step, what), dtype=dtype)

    def permutation(self, step: int, what: str, size: int) -> Tensor:
        """An order of `size` things."""
        return torch.randperm(size, generator=self.generator(step, what))
