"""The paper's autoencoder: `AutoencoderKL` of diffusers, frame by frame, frozen (Section 3.1.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError
from slowfast_vgen.latents.latents import Latents
from slowfast_vgen.pretrained import loaded

AT_ONCE = 16
"""Frames that go through it together."""


class Vae(Latents):
    """Latents are the mean of the posterior, scaled to about 1 as the pipeline's networks expect."""

    def __init__(self, path: str | None, height: int, width: int) -> None:
        """With the weights at `latents.path`.

        Raises:
            UserError: there are none, or a frame is no whole number of latents.
        """
        from diffusers import AutoencoderKL

        if path is None:
            raise UserError(
                "latents.kind=vae needs weights: set latents.path to a pipeline's folder or hub name, or use "
                "latents=patches, which needs none"
            )
        net = loaded(AutoencoderKL, path, "latents.path", "vae")
        side = 2 ** (len(net.config.block_out_channels) - 1)
        if height % side or width % side:
            raise UserError(
                f"latents.path={path}: its latents are {side}x{side} pixels each, and frames of {height}x{width} are "
                "no whole number of them; change data.height and data.width"
            )
        super().__init__(net.config.latent_channels, height // side, width // side)
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [..., height, width, 3] -> [..., values, h, w]."""
        flat = frames.movedim(-1, -3).flatten(0, -4).float() / 127.5 - 1
        z = torch.cat([self.net.encode(part).latent_dist.mode() for part in flat.split(AT_ONCE)])
        return (z * self.net.config.scaling_factor).unflatten(0, frames.shape[:-3])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """[..., values, h, w] -> [..., height, width, 3] in [0, 1]."""
        flat = z.flatten(0, -4) / self.net.config.scaling_factor
        colours = torch.cat([self.net.decode(part).sample for part in flat.split(AT_ONCE)])
        return ((colours + 1) / 2).clamp(0, 1).unflatten(0, z.shape[:-3]).movedim(-3, -1)
