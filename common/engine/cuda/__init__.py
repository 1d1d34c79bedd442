"""What a CUDA device changes, picked by device: the one place that asks. Plain torch is the CPU path and the oracle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # rules.py asks here for its kernels
    from common.engine.rules import Buffers, UpdateRule

Advance = Callable[["UpdateRule", Sequence[Tensor], Sequence[Tensor], Sequence[float], Sequence["Buffers"], int], None]
"""(rule, weights, gradients, rates, buffers, count): `UpdateRule.advance` of every tensor, one entry a weight."""
Pull = Callable[
    [
        "UpdateRule", Sequence[Tensor], Sequence[Tensor], Sequence[float], Sequence["Buffers"], int, Sequence[Tensor],
        Sequence["Buffers"],
    ],
    list[Tensor],
]  # fmt: skip
"""(rule, weights, gradients, rates, after, count, bars, buffer bars) -> rate bars: `UpdateRule.pull` of each tensor."""
TOGETHER = 2**24
"""Entries of a group on CUDA: 64 MiB of each float32 temporary, and by far enough work for all processors of a GPU."""


class Kernels(StrEnum):
    """How the tensors of one update are walked over."""

    reference = "reference"
    """One after the other in plain torch."""
    foreach = "foreach"
    """A few of torch's multi-tensor operations for all of them (`common.engine.cuda.foreach`)."""
    fused = "fused"
    """One Triton kernel for all of them (`common.engine.cuda.fused`)."""


@dataclass(frozen=True)
class Updates:
    """The two functions of an update rule for many tensors at once, all on one device."""

    advance: Advance
    pull: Pull
    together: int
    """Entries that a group holds at most."""

    def groups(self, tensors: Sequence[Tensor]) -> list[list[int]]:
        """Which tensors to hand to `pull` in one call."""
        return groups(tensors, self.together)


def groups(tensors: Sequence[Tensor], together: int) -> list[list[int]]:
    """Indices of neighbours with at most `together` entries in all, or of one tensor that is larger."""
    found: list[list[int]] = []
    room = 0
    for index, tensor in enumerate(tensors):
        room -= tensor.numel()
        if not found or room < 0:
            found.append([])
            room = together - tensor.numel()
        found[-1].append(index)
    return found


def updates(device: torch.device, kernels: Kernels | None = None) -> Updates:
    """The update functions for tensors on `device`: plain torch on a CPU, torch's multi-tensor operations on CUDA.

    `kernels` overrules that, for comparisons: `fused` reads and writes memory less often, but the two have never been
    timed on a GPU; until then `foreach` is the choice, as it needs no compiler.

    Raises:
        ModuleNotFoundError: `fused` is asked for and Triton is not installed.
    """
    if kernels is None:
        kernels = Kernels.foreach if device.type == "cuda" else Kernels.reference
    if kernels is Kernels.reference:
        return _REFERENCE
    from common.engine.cuda import foreach

    if kernels is Kernels.foreach:
        return Updates(foreach.advance, foreach.pull, TOGETHER)
    from common.engine.cuda import fused

    return Updates(fused.advance, fused.pull, TOGETHER)


def bf16(device: torch.device) -> torch.autocast:
    """Around the body of a loss: its matrix products run in bfloat16, and their gradients too.

    Weights stay float32, and so do their gradients, the rule's moments and the outer gradient, because a cast is an
    operation of the graph like any other. Casts are not cached: a cache would serve a second forward pass with casts
    that belong to the graph of the first, or to none.

    Bfloat16 rounds some sums to exactly 0 that are not: there AdamW's derivative by the gradient is that at 0, about
    1 / eps, and a single such entry can swamp an exact outer gradient. With AdamW inside, take an eps that is not small
    beside the gradients.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def _advance(
    rule: "UpdateRule",
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    buffers: Sequence["Buffers"],
    count: int,
) -> None:
    for w, g, rate, own in zip(weights, gradients, rates, buffers, strict=True):
        rule.advance(w, g, rate, own, count)


def _pull(
    rule: "UpdateRule",
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    after: Sequence["Buffers"],
    count: int,
    bars: Sequence[Tensor],
    buffer_bars: Sequence["Buffers"],
) -> list[Tensor]:
    each = zip(weights, gradients, rates, after, bars, buffer_bars, strict=True)
    return [rule.pull(w, g, rate, own, count, bar, own_bars) for w, g, rate, own, bar, own_bars in each]


_REFERENCE = Updates(_advance, _pull, 0)  # groups of one: a CPU gains nothing from more, and holds less at a time
