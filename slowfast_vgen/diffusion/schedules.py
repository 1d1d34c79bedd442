"""The shares of signal and noise at a time between 0 (latents) and 1 (noise)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

LAST = 0.99
"""Where on its arc the cosine ends that is to leave some signal: a ratio of signal to noise of 2.5e-4 in power."""
FIRST_BETA, LAST_BETA, COUNT = 0.00085, 0.012, 1000
"""Of the scaled linear schedule; the squares of evenly spaced numbers."""


class Shares(Protocol):
    """Signal and noise at times of any shape; their squares add up to 1, but for a flow."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Times in [0, 1] -> the factors of latents and noise, of their shape."""


class Cosine:
    """cos and sin of a quarter of a circle (Nichol and Dhariwal 2021, without their offset)."""

    def __init__(self, zero_snr: bool) -> None:
        self.last = 1.0 if zero_snr else LAST

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        quarter, t = math.pi / 2, t * self.last
        return (quarter * (1 - t)).sin(), (quarter * t).sin()  # a sine is exactly 0 at its end, a cosine is not


class ScaledLinear:
    """The betas of a pretrained network: time (i + 1) / 1000 is its step i, between them a straight line."""

    def __init__(self, zero_snr: bool) -> None:
        betas = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, COUNT, dtype=torch.double).square()
        signal = (1 - betas).cumprod(0).sqrt()
        if zero_snr:  # Lin et al. 2024, Algorithm 1: the first stays, the last is 0
            signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
        self.signal = torch.cat([torch.ones(1, dtype=torch.double), signal])

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        at = t.double() * COUNT
        below = at.floor().clamp(0, COUNT - 1).long()
        table = self.signal.to(t.device)
        signal = table[below].lerp(table[below + 1], at - below)
        return signal.to(t.dtype), (1 - signal.square()).clamp(min=0).sqrt().to(t.dtype)


def straight(t: Tensor) -> tuple[Tensor, Tensor]:
    """A flow's: the factors add up to 1."""
    return 1 - t, t
