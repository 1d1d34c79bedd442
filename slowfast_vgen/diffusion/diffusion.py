"""Noise and back: one small class for each thing that a network may predict.

x = a(t) z + s(t) noise, for latents z and factors of a schedule. A network is trained towards `target`; from its
output `recover` gives the latents and the noise that it means, and `step` mixes them anew for an earlier time, which is
DDIM (Song et al. 2021) without noise of its own, and Euler's method for a flow.

Times have the shape [n] or [n, frames] and hold for all dimensions that follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction, Schedule, shift_by_size
from slowfast_vgen.diffusion.schedules import Cosine, ScaledLinear, Shares, straight


class Diffusion(ABC):
    """Noise and back, whatever the network predicts."""

    def __init__(self, shares: Shares, shift: float, clip: float | None = None) -> None:
        """`shift` of the times; `clip`: the largest absolute value of latents that a sampling step foresees."""
        self.shares, self.shift, self.clip = shares, shift, clip

    def times(self, u: Tensor) -> Tensor:
        """Evenly drawn numbers in [0, 1] -> diffusion times, more of them near 1 the larger the shift."""
        return self.shift * u / (1 + (self.shift - 1) * u)

    def grid(self, steps: int) -> Tensor:
        """The times of a sample, from 1 down to 0; [steps + 1]."""
        return self.times(torch.linspace(1, 0, steps + 1, dtype=torch.double)).float()

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents [n, ...] with the noise of time t."""
        signal, share = self._factors(t, z)
        return signal * z + share * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a network should say of `noised(z, noise, t)`; the shape of z."""
        return self._target(z, noise, *self._factors(t, z))

    def recover(self, x: Tensor, out: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The latents and the noise that x at time t was made of, if `out` is right; both of the shape of x.

        At a time without noise, or without signal where noise is predicted, one of them is divided by 0.
        """
        return self._recover(x, out, *self._factors(t, x))

    def step(self, x: Tensor, out: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """From x at time t to an earlier time u."""
        z, noise = self.recover(x, out, t)
        if self.clip is not None:
            z = z.clamp(-self.clip, self.clip)
        return self.noised(z, noise, u)

    def _factors(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        signal, share = self.shares(t.to(like.dtype))
        shape = (*t.shape, *[1] * (like.dim() - t.dim()))
        return signal.view(shape), share.view(shape)

    @abstractmethod
    def _target(self, z: Tensor, noise: Tensor, signal: Tensor, share: Tensor) -> Tensor: ...

    @abstractmethod
    def _recover(self, x: Tensor, out: Tensor, signal: Tensor, share: Tensor) -> tuple[Tensor, Tensor]: ...


class Eps(Diffusion):
    """The network predicts the noise (the paper's Eq. 1)."""

    def _target(self, z: Tensor, noise: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        return noise

    def _recover(self, x: Tensor, out: Tensor, signal: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        return (x - share * out) / signal, out


class Velocity(Diffusion):
    """The network predicts a noise - s z, the derivative of x along the circle (Salimans and Ho 2022, Appendix D)."""

    def _target(self, z: Tensor, noise: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        return signal * noise - share * z

    def _recover(self, x: Tensor, out: Tensor, signal: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        return signal * x - share * out, share * x + signal * out


class Flow(Diffusion):
    """The network predicts noise - z, the derivative of x along the line (Liu et al. 2023)."""

    def _target(self, z: Tensor, noise: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        return noise - z

    def _recover(self, x: Tensor, out: Tensor, signal: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        return x - share * out, x + signal * out


def diffusion_of(config: DiffusionConfig, values: int) -> Diffusion:
    """The diffusion of the settings, for latents of so many values a frame."""
    shift = shift_by_size(values) if config.shift is None else config.shift
    if config.kind is Prediction.flow:
        return Flow(straight, shift, config.clip)
    curve = Cosine if config.schedule is Schedule.cosine else ScaledLinear
    kind = Eps if config.kind is Prediction.eps else Velocity
    return kind(curve(config.zero_snr), shift, config.clip)
