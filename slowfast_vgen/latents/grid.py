"""Sizes of latents, known without weights."""

from typing import NamedTuple

from slowfast_vgen.latents.config import Kind, LatentsConfig

VAE_VALUES, TAEF2_VALUES, SIDE = 4, 32, 8
"""Of Stable Diffusion's and ModelScopeT2V's autoencoder, of TAEF2, and the pixels on a side of a latent of both."""


class Grid(NamedTuple):
    """Numbers at a position, and positions of a frame."""

    values: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Latent values a frame."""
        return self.values * self.height * self.width


def grid_of(config: LatentsConfig, height: int, width: int) -> Grid:
    """Of frames of `height` x `width` pixels; an autoencoder at a path is taken to have the usual sizes."""
    if config.kind is Kind.pixels:
        return Grid(3, height, width)
    if config.kind is Kind.patches:
        return Grid(config.values, height // config.patch, width // config.patch)
    values = VAE_VALUES if config.kind is Kind.vae else TAEF2_VALUES
    return Grid(values, height // SIDE, width // SIDE)
