"""Noise that is a function of what it is for: (seed, episode, chunk, step, draw), whatever else is drawn beside it.

So a stack of episodes has the noise that each has alone, and a continued run that of one that was never stopped.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_vgen.worlds.draws import Draws

Keys = NDArray[np.int64]
"""One for each thing that has noise of its own."""
NORMAL, EVEN = Draws("normal"), Draws("even")


class Noise:
    """Keys of noise, by what it is for."""

    def __init__(self, seed: int, *purpose: object) -> None:
        """`purpose` parts the noise of one seed: of training, of a test."""
        self._name = (seed, *purpose)

    def keys(self, ids: Sequence[str], chunk: int, step: int = 0, draws: int = 1) -> Keys:
        """A key for each of `draws` draws in `step` after `chunk` of each episode; [episodes, draws]."""
        episodes = np.array([_number(each) for each in ids], np.int64)
        drawn = Draws("noise", *self._name, chunk, step)
        return drawn.bits(episodes[:, None], np.arange(draws)).view(np.int64)


def normal(keys: Keys, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 [*keys.shape, *shape] (Box and Muller 1958)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    even = NORMAL.floats(keys[..., None], np.arange(2 * half))
    radius = np.sqrt(-2 * np.log1p(-even[..., :half]))
    angle = 2 * np.pi * even[..., half:]
    numbers = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], -1)[..., :count]
    return torch.from_numpy(numbers.astype(np.float32)).view(*keys.shape, *shape)


def even(keys: Keys) -> Tensor:
    """Numbers evenly drawn from [0, 1), float32 [*keys.shape]."""
    return torch.from_numpy(EVEN.floats(keys).astype(np.float32)).clamp(max=1 - 2**-24)


def strata(keys: Keys) -> Tensor:
    """Numbers in [0, 1), one in each of as many equal parts as the last axis of `keys` has, in order."""
    count = keys.shape[-1]
    return ((torch.arange(count) + even(keys)) / count).clamp(max=1 - 2**-24)


def chosen(keys: Keys, below: int) -> Tensor:
    """Whole numbers evenly drawn from 0 to `below` - 1, int64 [*keys.shape]."""
    return torch.from_numpy(EVEN.integers(keys, below, 1))


@lru_cache(maxsize=1 << 16)
def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little", signed=True)
