"""The keys below `diffusion`: what the network predicts, how noise grows, how many steps a sample takes."""

import math
from dataclasses import dataclass
from enum import StrEnum

from common.errors import UserError

REFERENCE = 12
"""Latent values a frame at which the default shift is 1."""


class Prediction(StrEnum):
    """What the network predicts."""

    eps = "eps"
    """The noise: the paper's (Eq. 1-2)."""
    v = "v"
    """Velocity (Salimans and Ho 2022): defined without signal, too."""
    flow = "flow"
    """Noise minus latents on the straight line between them (Liu et al. 2023)."""


class Schedule(StrEnum):
    """How the signal's share falls with time."""

    cosine = "cosine"
    scaled_linear = "scaled_linear"
    """The 1,000 betas of Stable Diffusion and ModelScopeT2V."""


@dataclass
class DiffusionConfig:
    """conf/slowfast_vgen/diffusion. The paper names neither schedule nor sampler."""

    kind: Prediction = Prediction.eps
    schedule: Schedule = Schedule.cosine
    """Of kind=eps and kind=v; a flow's is a straight line."""
    zero_snr: bool = False
    """The last time has no signal left (Lin et al. 2024). A flow's never has."""
    shift: float | None = None
    """Times become s t / (1 + (s - 1) t), in training and sampling; null is by the number of latent values a frame."""
    steps: int = 50
    """Of a sample (DDIM; Euler for a flow)."""
    clip: float | None = None
    """Largest absolute value of the latents that a sampling step foresees; null does not clip."""

    def __post_init__(self) -> None:
        """Refuse what no sample comes of.

        Raises:
            UserError: a value is out of range, or the noise is asked for where there is no signal.
        """
        if self.kind is Prediction.eps and self.zero_snr:
            raise UserError(
                "diffusion.kind=eps with diffusion.zero_snr=true: the last step has no signal, and noise alone says "
                "nothing of the latents; use diffusion.zero_snr=false, or diffusion=v"
            )
        if self.shift is not None and not (math.isfinite(self.shift) and self.shift > 0):
            raise UserError(f"diffusion.shift={self.shift}: use a number above 0, 1 shifts nothing; null is by size")
        if self.steps < 1:
            raise UserError(f"diffusion.steps={self.steps}: use 1 or more")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"diffusion.clip={self.clip}: use a number above 0, or null")


def shift_by_size(values: int) -> float:
    """The default shift for so many latent values a frame.

    The square root of their number, as the noise of their mean falls: 2 for the 30 of the small rooms and 4 for the 192
    of the large ones, which learn nothing without it.
    """
    return max(1.0, float(round(math.sqrt(values / REFERENCE))))
