"""The losses: masked denoising of slow learning (Eq. 2) and of TEMP-LORA (Eq. 3); and the metric that selects."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.engine.weights import Weights, call
from common.run.results import Interval, Selection
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.diffusion.diffusion import Diffusion

SELECTION = Selection("place", higher_is_better=True)
"""Share of generated chunks that end on the right picture; see `slowfast_vgen.scoring`."""
RECONSTRUCTION = Selection("psnr", higher_is_better=True)
"""For worlds without a catalogue of pictures."""
CATALOGUED = ("rooms",)
"""Worlds with one."""


def denoising_loss(
    network: nn.Module,
    diffusion: Diffusion,
    z: Tensor,
    action: Tensor,
    clean: Tensor,
    t: Tensor,
    noise: Tensor,
    weights: Weights | None = None,
) -> Tensor:
    """Mean squared error of the prediction on the noised frames of each clip; [n].

    Clean frames enter as they are and count nothing: the gradient with respect to what is predicted there is exactly 0.
    With some clean it is Eq. 2, with none and the null action Eq. 3.

    Args:
        network: a denoiser, see `slowfast_vgen.model`.
        diffusion: what it predicts, and of which noise.
        z: latents [n, frames, values, height, width].
        action: int64 [n]; 0 is none.
        clean: bool [n, frames]: the past, at least one frame less than all.
        t: diffusion times [n].
        noise: as `z`.
        weights: in place of the network's own, as `common.engine.weights.call` takes them.
    """
    given = clean[:, :, None, None, None]
    x = torch.where(given, z, diffusion.noised(z, noise, t))
    times = t[:, None].expand(clean.shape)
    out = predicted(network, x, times, action, clean, weights)
    error = (out - diffusion.target(z, noise, t)).square().mean((2, 3, 4))
    counted = (~clean).to(z.dtype)
    return torch.where(clean, 0, error).sum(1) / counted.sum(1)


def predicted(
    network: nn.Module, x: Tensor, times: Tensor, action: Tensor, clean: Tensor, weights: Weights | None
) -> Tensor:
    """What the network says, with its own weights or with others; arguments as in its `forward`."""
    if weights is None:
        return network(x, times, action, clean)
    return call(network, weights, x, times, action, clean)


def selection_of(config: TrainConfig) -> Selection:
    """The metric that selects in the world of a configuration."""
    return SELECTION if config.data.world in CATALOGUED else RECONSTRUCTION


def headline(test: Mapping[str, Interval]) -> float:
    """The first of the metrics that select, which a run has."""
    return next(each.headline(test) for each in (SELECTION, RECONSTRUCTION) if each.metric in test)
