"""Where the points of an attack start."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fal.adversary.balls import Ball, normals
from fal.adversary.config import Start

Where = Callable[[Tensor, Tensor, Ball], Tensor]
"""(clean points x, [items, ...], numbers from [0, 1) of their shape, ball) -> points of the ball. An item's point is a
function of its own numbers."""
NORMAL = 0.001
"""Standard deviation of `start=normal`."""
BLOCKS = 4
"""Blocks of `start=blocks` along a side."""
SMALLEST, LARGEST = 1 / 3, 2 / 3
"""Side of the square of `start=patch`, of an image's shorter side."""


def _random(x: Tensor, draw: Tensor, ball: Ball) -> Tensor:
    return ball.start(x, draw)


def _normal(x: Tensor, draw: Tensor, ball: Ball) -> Tensor:
    return ball.project(x + NORMAL * normals(draw), x)


def _blocks(x: Tensor, draw: Tensor, ball: Ball) -> Tensor:
    few = interpolate(draw[..., :BLOCKS, :BLOCKS], size=x.shape[2:]).round()
    return ball.start(x, few)  # 0 and 1 are the rim of any ball


def _patch(x: Tensor, draw: Tensor, ball: Ball) -> Tensor:
    """A channel goes up as likely as its square is dark: there the box leaves it room."""
    numbers, shape = draw.flatten(1), x.shape[2:]
    side = (SMALLEST + (LARGEST - SMALLEST) * numbers[:, :1]) * min(shape)

    def inside(length: int, place: Tensor) -> Tensor:
        first, at = place * (length - side), torch.arange(length, device=x.device)
        return (at >= first) & (at < first + side)

    down, across = (inside(length, numbers[:, axis : axis + 1]) for axis, length in enumerate(shape, 1))
    square = (down[:, None, :, None] & across[:, None, None, :]).to(x.dtype)
    bright = (x * square).sum((2, 3)) / square.sum((2, 3))
    up = numbers[:, 3 : 3 + x.shape[1]] >= bright
    direction = torch.where(up, 1.0, -1.0)[..., None, None] * square
    return ball.project(ball.step(x, direction.to(x.dtype), ball.radius), x)


STARTS: dict[Start, Where] = {
    Start.random: _random,
    Start.normal: _normal,
    Start.blocks: _blocks,
    Start.patch: _patch,
}
"""All but `none`, which is x."""
