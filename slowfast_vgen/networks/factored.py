"""A denoiser factored into space and time, small enough for a CPU.

Each layer attends over the positions of a frame, then over the frames of a position, then applies an MLP. Diffusion
time and action scale and shift what enters the last two, and scale what leaves them. A learned vector for each frame
and position carries order; the network is the same function of its window wherever a clip begins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.twice.attention import attend
from slowfast_vgen.networks.config import ModelConfig

FREQUENCIES = 16
"""Sines and as many cosines that a diffusion time is described by."""
FASTEST = 5.0
"""Logarithm of the highest of them, in radians for the whole of the diffusion."""
MODULATIONS = 6
"""Scale and shift before attention over time and before the MLP, and a scale after each."""


class Attention(nn.Module):
    """Softmax attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, width] -> the same."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found, _ = attend(query, key, value)
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Space, time, MLP, each added to what it read."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.width = width
        self.spatial = Attention(width, heads)
        self.temporal = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
        self.modulation = nn.Linear(width, MODULATIONS * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """h [n, frames, positions, width], condition [n, frames or 1, width] -> h."""
        rows, frames, positions, width = h.shape
        scale, shift, after, scale_mlp, shift_mlp, after_mlp = (
            self.modulation(condition)[:, :, None].chunk(MODULATIONS, -1)
        )  # fmt: skip
        h = h + self.spatial(self._normal(h).flatten(0, 1)).view(h.shape)
        y = (self._normal(h) * (1 + scale) + shift).transpose(1, 2).reshape(-1, frames, width)
        y = self.temporal(y).view(rows, positions, frames, width).transpose(1, 2)
        h = h + y * (1 + after)
        return h + self.mlp(self._normal(h) * (1 + scale_mlp) + shift_mlp) * (1 + after_mlp)

    def _normal(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,))


class Factored(nn.Module):
    """The denoiser of clips."""

    def __init__(self, config: ModelConfig, values: int, height: int, width: int, actions: int) -> None:
        """For latents of `values` numbers at `height` x `width` positions, and ids 0 .. `actions` - 1 (0: none)."""
        super().__init__()
        (own,) = config.widths
        self.window, self.own = config.window, own
        self.mask_channel, self.frame_times = config.mask_channel, config.frame_times
        self.enter = nn.Linear(values + config.mask_channel, own)
        self.leave = nn.Linear(own, values)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.position = nn.Parameter(0.1 * torch.randn(height * width, own))
        self.frame = nn.Parameter(0.1 * torch.randn(config.window, 1, own))
        self.action = nn.Embedding(actions, own)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, own), nn.SiLU(), nn.Linear(own, own))
        heads = own // config.head
        self.layers = nn.ModuleList(Layer(own, heads, config.expansion) for _ in range(config.depth))

    def forward(self, x: Tensor, time: Tensor, action: Tensor, clean: Tensor) -> Tensor:
        """The prediction for every frame of a batch of clips.

        Args:
            x: [n, frames, values, height, width], at most `window` frames.
            time: [n, frames] in [0, 1], 1 is noise.
            action: int64 [n]; 0 is none.
            clean: bool [n, frames]: frames that carry no noise.

        Returns:
            As `x`.

        Raises:
            ValueError: more frames than the window has.
        """
        rows, frames, _, height, width = x.shape
        if frames > self.window:
            raise ValueError(f"{frames} frames in a window of {self.window}")
        h = x.flatten(3).transpose(2, 3)
        if self.mask_channel:
            h = torch.cat([h, clean.to(x.dtype)[:, :, None, None].expand(-1, -1, height * width, 1)], -1)
        h = self.enter(h) + self.position + self.frame[:frames]
        condition = self._condition(time, action, clean)
        for layer in self.layers:
            h = layer(h, condition)
        out = self.leave(F.layer_norm(h, (self.own,)))
        return out.transpose(2, 3).reshape(rows, frames, -1, height, width)

    def _condition(self, time: Tensor, action: Tensor, clean: Tensor) -> Tensor:
        """Time and action as a vector: [n, frames, width], or [n, 1, width] where a video has one time."""
        told = time.masked_fill(clean, 0) if self.frame_times else time.amax(1, keepdim=True)
        frequencies = torch.linspace(0, FASTEST, FREQUENCIES, device=told.device, dtype=told.dtype).exp()
        angles = told[..., None] * frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], -1)) + self.action(action)[:, None]
