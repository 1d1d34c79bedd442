"""TAEF2 (madebyollin/taesd): an autoencoder of 1.3 million weights each way; 8 by 8 pixels become 32 values.

The numbers in its files' names count layers, so the layers here stand in the same order.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from common.data.statedict import read_state_dict
from common.errors import UserError
from slowfast_vgen.latents.latents import COLOURS, Latents

SIDE, VALUES, CHANNELS = 8, 32, 64
GROUPS, WIDER = 4, 4
"""Of a block's pool: groups of its norm, and how many times wider its middle is."""
LIMIT = 3.0
"""Latents beyond it are bent before they are decoded."""
ENCODER, DECODER = "taef2_encoder.pth", "taef2_decoder.pth"
AT_ONCE = 64
"""Frames that go through it together."""


class Bent(nn.Module):
    """tanh, with slope 1 at 0 and 3 at most."""

    def forward(self, z: Tensor) -> Tensor:
        return (z / LIMIT).tanh() * LIMIT


class Block(nn.Module):
    """Three convolutions added to what they read; before them, in some, a convolution of single positions."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        wide = CHANNELS * WIDER
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(CHANNELS, wide, 1, bias=False),
                nn.GroupNorm(GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, CHANNELS, 1, bias=False),
            )
        self.pooled = pooled
        self.conv = nn.Sequential(
            *(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pooled:
            x = x + self.pool(x)
        return (self.conv(x) + x).relu()


def encoder() -> nn.Sequential:
    """Colours in [0, 1] [n, 3, height, width] -> [n, 32, height / 8, width / 8]."""
    halved = chain.from_iterable(
        (nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False), *(Block(last) for _ in range(3)))
        for last in (False, False, True)
    )
    first = nn.Conv2d(COLOURS, CHANNELS, 3, padding=1)
    return nn.Sequential(first, Block(False), *halved, nn.Conv2d(CHANNELS, VALUES, 3, padding=1))


def decoder() -> nn.Sequential:
    """[n, 32, h, w] -> colours [n, 3, 8 h, 8 w], mostly in [0, 1]."""
    doubled = chain.from_iterable(
        (
            *(Block(first) for _ in range(3)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        )
        for first in (True, False, False)
    )
    enter = nn.Conv2d(VALUES, CHANNELS, 3, padding=1)
    leave = nn.Conv2d(CHANNELS, COLOURS, 3, padding=1)
    return nn.Sequential(Bent(), enter, nn.ReLU(), *doubled, Block(False), leave)


class Taef2(Latents):
    """Frozen, in float32."""

    def __init__(self, path: str | None, height: int, width: int) -> None:
        """With the weights in the folder `latents.path`.

        Raises:
            UserError: they are not there, damaged or others, or a frame is no whole number of latents.
        """
        if path is None:
            raise UserError(
                f"latents.kind=taef2 needs weights: set latents.path to the folder of {ENCODER} and {DECODER}, or use "
                "latents=patches, which needs none"
            )
        if height % SIDE or width % SIDE:
            raise UserError(
                f"latents.kind=taef2: frames of {height}x{width} pixels are no whole number of {SIDE}x{SIDE}; change "
                "data.height and data.width, or use latents=patches"
            )
        super().__init__(VALUES, height // SIDE, width // SIDE)
        folder = Path(path).expanduser()
        self.encoder, self.decoder = (
            _read(network(), folder / name).eval().requires_grad_(False)
            for network, name in ((encoder, ENCODER), (decoder, DECODER))
        )

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [..., height, width, 3] -> [..., 32, h, w]."""
        flat = frames.movedim(-1, -3).flatten(0, -4).float() / 255
        return torch.cat([self.encoder(part) for part in flat.split(AT_ONCE)]).unflatten(0, frames.shape[:-3])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """[..., 32, h, w] -> [..., height, width, 3] in [0, 1]."""
        colours = torch.cat([self.decoder(part) for part in z.flatten(0, -4).split(AT_ONCE)])
        return colours.clamp(0, 1).unflatten(0, z.shape[:-3]).movedim(-3, -1)


def _read(network: nn.Sequential, file: Path) -> nn.Sequential:
    try:
        network.load_state_dict(read_state_dict(file, "latents.path"))
    except RuntimeError as error:
        raise UserError(f"{file} holds weights of another network than TAEF2; correct latents.path") from error
    return network
