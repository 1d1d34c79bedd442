"""What a denoiser weighs, and what a step of each kind of learning holds in memory, counted without data or weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from common.engine.adapter import Adapter, layers
from common.engine.footprint import trace
from common.engine.lora import make_stackable
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.single import gradient_peak
from common.engine.weights import Weights, call, select, stack
from slowfast_vgen.latents.grid import Grid
from slowfast_vgen.networks.config import PART, TEMPORAL, TIMED, Kind

FLOAT = 4
"""Bytes of a number in float32."""
MOMENTS = 2
"""Numbers that Adam remembers of a weight."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Work:
    """How much is learned in one step of each kind."""

    chunk: int
    """Frames of a chunk; a clip has two."""
    clips: int
    """Of a step of slow learning, and of the loop."""
    draws: int
    """Of noise, in a fast step."""
    steps: int
    """Fast steps a chunk."""
    episodes: int
    """Of a meta step: one stack."""
    length: int
    """Chunks that a meta step writes into a memory."""
    unroll: Unroll
    """Of a meta step."""


@dataclass(frozen=True)
class Hollow:
    """A denoiser with an adapter, without data. Nothing in it learns until it is asked to."""

    network: nn.Module
    slow: Weights
    fast: Weights
    timed: int
    """Weights that see more than one frame."""
    mode: FakeTensorMode
    grid: Grid

    @property
    def weights(self) -> int:
        """Of the network without its adapter."""
        return counted(self.slow)


@dataclass(frozen=True)
class Memory:
    """Bytes of a step at its peak, weights and optimiser included."""

    slow: int
    fast: int
    loop: int
    meta: int


def hollow(
    network: nn.Module, kind: Kind, grid: Grid, rank: int, patterns: Sequence[str] = (), both: bool = True
) -> Hollow:
    """The shapes of `network`, which gets an adapter of `rank` on the layers of `patterns` (none: the temporal ones).

    Its weights, which may be on the meta device, are replaced by ones without data. `both`: A and B are fast, else B
    alone.

    Raises:
        UserError: a pattern matches no layer.
    """
    timed = counted(select(network, TIMED[kind]))
    chosen = layers(network.get_submodule(PART[kind]), patterns or TEMPORAL[kind], "fast.layers")
    adapter = Adapter(network, PART[kind], target_modules=chosen, r=rank, lora_alpha=rank)
    make_stackable(network)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    own = [name for name in adapter.matrices() if both or "lora_B." in name]
    with mode:
        for module in network.modules():
            for name, weight in module.named_parameters(recurse=False):
                module.register_parameter(name, nn.Parameter(torch.empty(weight.shape), requires_grad=False))
    named = dict(network.named_parameters())
    slow: Weights = {name: w for name, w in named.items() if "lora_" not in name}
    return Hollow(network, slow, {name: named[name] for name in own}, timed, mode, grid)


def memory(shape: Hollow, work: Work) -> Memory:
    """Of one step of each kind, counted operation by operation."""
    return Memory(slow(shape, work), fast(shape, work), loop(shape, work), meta(shape, work))


def slow(shape: Hollow, work: Work) -> int:
    """Slow learning: bytes at the peak."""
    batch = _batch(shape, work.clips, 2 * work.chunk)
    held = FLOAT * (1 + MOMENTS) * shape.weights
    return held + gradient_peak(lambda weights, part: _loss(shape, weights, part).sum(), shape.slow, batch)


def loop(shape: Hollow, work: Work) -> int:
    """The slow-fast loop's slow step: each clip has the memory of its episode, which stays as it is."""
    with shape.mode:
        theta = stack(shape.fast, work.clips)
    batch = _batch(shape, work.clips, 2 * work.chunk)

    def loss(weights: Weights, part: Batch) -> Tensor:
        return _loss(shape, {**weights, **theta}, part).sum()

    held = FLOAT * ((1 + MOMENTS) * shape.weights + work.clips * counted(shape.fast))
    return held + gradient_peak(loss, shape.slow, batch)


def fast(shape: Hollow, work: Work) -> int:
    """A step of fast learning, of one episode; nothing else learns."""
    batch = _batch(shape, work.draws, 2 * work.chunk)
    held = FLOAT * (shape.weights + (1 + MOMENTS) * counted(shape.fast))
    return held + gradient_peak(lambda weights, part: _loss(shape, weights, part).sum(), shape.fast, batch)


def meta(shape: Hollow, work: Work) -> int:
    """An outer step through the fast steps of `length` chunks, all episodes at once."""
    episodes = work.episodes
    inner = _batch(shape, episodes * work.draws, 2 * work.chunk)
    outer = _batch(shape, episodes * work.length, 2 * work.chunk)
    with shape.mode:
        start = stack(shape.fast, episodes)
    learning = [weight.requires_grad_() for weight in shape.slow.values()]
    try:
        cost = trace(
            lambda weights, part: _loss(shape, weights, part, episodes),
            lambda weights: _loss(shape, weights, outer, episodes),
            start,
            [inner],
            SGD(),
            learning,
            rebuilds=work.unroll is Unroll.recompute,
        ).footprint()
    finally:
        for weight in learning:
            weight.requires_grad_(False)
    return cost.peak(work.unroll, work.steps * work.length, 0) + FLOAT * (1 + MOMENTS) * shape.weights


def counted(weights: Weights) -> int:
    """How many numbers."""
    return sum(weight.numel() for weight in weights.values())


def _batch(shape: Hollow, rows: int, frames: int) -> Batch:
    """Of no particular numbers."""
    with shape.mode:
        x = torch.empty(rows, frames, *shape.grid)
        time, action = torch.empty(rows, frames), torch.zeros(rows, dtype=torch.long)
        return x, time, action, torch.zeros(rows, frames, dtype=torch.bool)


def _loss(shape: Hollow, weights: Weights, batch: Batch, episodes: int = 1) -> Tensor:
    """[episodes]"""
    error = (call(shape.network, weights, *batch) - batch[0]).square()
    return error.unflatten(0, (episodes, -1)).flatten(1).mean(1)
