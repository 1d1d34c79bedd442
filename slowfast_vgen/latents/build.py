"""The autoencoder of the settings."""

from __future__ import annotations

from slowfast_vgen.latents.config import Kind, LatentsConfig
from slowfast_vgen.latents.latents import Latents, Pixels
from slowfast_vgen.latents.patches import Patches
from slowfast_vgen.latents.taef2 import Taef2
from slowfast_vgen.latents.vae import Vae


def latents_of(config: LatentsConfig, height: int, width: int) -> Latents:
    """For frames of `height` x `width` pixels; patches are still to be fitted.

    Raises:
        UserError: the frames do not go with it, or its weights are not there.
    """
    if config.kind is Kind.pixels:
        return Pixels(height, width)
    if config.kind is Kind.patches:
        return Patches(config.patch, config.values, height, width)
    kind = Vae if config.kind is Kind.vae else Taef2
    return kind(config.path, height, width)
