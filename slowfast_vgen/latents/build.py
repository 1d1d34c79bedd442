"""The autoencoder of the settings."""

from __future__ import annotations

from slowfast_vgen.latents.config import Kind, LatentsConfig
from slowfast_vgen.latents.latents import Latents, Pixels
from slowfast_vgen.latents.patches import Patches


def latents_of(config: LatentsConfig, height: int, width: int) -> Latents:
    """For frames of `height` x `width` pixels; patches are still to be fitted.

    Raises:
        UserError: the frames do not go with it, or its weights are not there.
    """
    if config.kind is Kind.pixels:
        return Pixels(height, width)
    return Patches(config.patch, config.values, height, width)
