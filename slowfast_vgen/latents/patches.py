"""Orthonormal principal components of square patches: fitted in closed form, inverted exactly on what is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError
from slowfast_vgen.latents.latents import COLOURS, Latents


class Patches(Latents):
    """Each patch of p x p pixels becomes `values` numbers of one common scale."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, patch: int, values: int, height: int, width: int) -> None:
        """For frames of `height` x `width` pixels; encodes nothing before `fit` or `load_state_dict`.

        Raises:
            UserError: the patches do not cover the frame.
        """
        if height % patch or width % patch:
            raise UserError(
                f"latents.patch={patch}: frames of {height}x{width} pixels are no whole number of such patches; use a "
                "side that divides both"
            )
        super().__init__(values, height // patch, width // patch)
        self.patch = patch
        colours = COLOURS * patch**2
        self.register_buffer("mean", torch.zeros(colours))
        self.register_buffer("basis", torch.zeros(colours, values))
        self.register_buffer("scale", torch.zeros(()))

    @torch.no_grad()
    def fit(self, frames: Tensor) -> None:
        """Take the components of most variance from uint8 `frames` [..., height, width, 3].

        A function of the frames: signs are chosen, and the sums are in float64.

        Raises:
            UserError: the patches vary along fewer directions than are to be kept.
        """
        pieces = self._cut(frames.double() / 255).flatten(0, -2)
        mean = pieces.mean(0)
        centred = pieces - mean
        variance, directions = torch.linalg.eigh(centred.mT @ centred / len(pieces))
        basis = directions.flip(1)[:, : self.values]
        kept = variance.flip(0)[: self.values]
        if kept[-1] <= 1e-10:
            varied = int((variance > 1e-10).sum())
            raise UserError(
                f"latents.values={self.values}: the patches of these {frames.shape[:-3].numel()} frames vary along "
                f"{varied} directions only; use latents.values={max(1, varied)}, or fit more frames"
            )
        largest = basis.abs().argmax(0, keepdim=True)
        basis = basis * basis.gather(0, largest).sign()
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.scale.copy_(kept.mean().sqrt())

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [..., height, width, 3] -> [..., values, h, w]."""
        return self.analysed(frames.float() / 255)

    def decode(self, z: Tensor) -> Tensor:
        """[..., values, h, w] -> [..., height, width, 3] in [0, 1]."""
        return self.composed(z).clamp(0, 1)

    def analysed(self, colours: Tensor) -> Tensor:
        """Colours [..., height, width, 3] in [0, 1] -> [..., values, h, w]; the left inverse of `composed`.

        Raises:
            ValueError: nothing was fitted.
        """
        if not self.scale > 0:
            raise ValueError("patches were neither fitted nor loaded")
        z = (self._cut(colours) - self.mean) @ self.basis / self.scale
        return z.movedim(-1, -3)

    def composed(self, z: Tensor) -> Tensor:
        """[..., values, h, w] -> colours [..., height, width, 3], which may leave [0, 1]."""
        pieces = z.movedim(-3, -1) * self.scale @ self.basis.mT + self.mean
        pieces = pieces.unflatten(-1, (self.patch, self.patch, COLOURS)).transpose(-4, -3)
        return pieces.flatten(-5, -4).flatten(-3, -2)

    def _cut(self, colours: Tensor) -> Tensor:
        """[..., height, width, 3] -> [..., h, w, patch * patch * 3]."""
        pieces = colours.unflatten(-2, (self.width, self.patch)).unflatten(-4, (self.height, self.patch))
        return pieces.transpose(-4, -3).flatten(-3)
