"""What a CUDA device changes, picked by device: the one place that asks. Plain torch is the CPU path and the oracle."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from common.engine.cuda import foreach, reference
from common.engine.rules import Buffers, Together, UpdateRule
from common.engine.settings import Kernels
from common.engine.together import shared_out

T = TypeVar("T")
Advance = Callable[[UpdateRule, Sequence[Tensor], Sequence[Tensor], Sequence[float], Sequence[Buffers], int], None]
"""(rule, weights, gradients, rates, buffers, count): `UpdateRule.advance` of every tensor, one entry a weight."""
Pull = Callable[
    [
        UpdateRule, Sequence[Tensor], Sequence[Tensor], Sequence[float], Sequence[Buffers], int, Sequence[Tensor],
        Sequence[Buffers],
    ],
    list[Tensor],
]  # fmt: skip
"""(rule, weights, gradients, rates, after, count, bars, buffer bars) -> rate bars: `UpdateRule.pull` of each tensor."""


@dataclass(frozen=True)
class Updates:
    """The two functions of an update rule for many tensors at once, all on one device."""

    advance: Advance
    pull: Pull
    together: int
    """Entries that a group holds at most."""

    def groups(self, tensors: Sequence[Tensor]) -> list[list[int]]:
        """Which tensors to hand to `pull` in one call."""
        return reference.groups(tensors, self.together)


def _updates(advance: Advance, pull: Pull, together: int) -> Updates:
    """Updates for rules of single tensors and for `Together`, whose weights go by the rule that each has."""

    def shared_advance(
        rule: UpdateRule,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        rates: Sequence[float],
        buffers: Sequence[Buffers],
        count: int,
    ) -> None:
        if not isinstance(rule, Together):
            return advance(rule, weights, gradients, rates, buffers, count)
        for own, at in shared_out(rule, len(weights)):
            advance(own, _at(at, weights), _at(at, gradients), _at(at, rates), _at(at, buffers), count)

    def shared_pull(
        rule: UpdateRule,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        rates: Sequence[float],
        after: Sequence[Buffers],
        count: int,
        bars: Sequence[Tensor],
        buffer_bars: Sequence[Buffers],
    ) -> list[Tensor]:
        if not isinstance(rule, Together):
            return pull(rule, weights, gradients, rates, after, count, bars, buffer_bars)
        found: dict[int, Tensor] = {}
        for own, at in shared_out(rule, len(weights)):
            given = _at(at, weights), _at(at, gradients), _at(at, rates), _at(at, after), count
            found |= zip(at, pull(own, *given, _at(at, bars), _at(at, buffer_bars)), strict=True)
        return [found[index] for index in range(len(weights))]

    return Updates(shared_advance, shared_pull, together)


def _at(indices: Sequence[int], column: Sequence[T]) -> list[T]:
    return [column[index] for index in indices]


_REFERENCE = _updates(reference.advance, reference.pull, 0)  # a CPU gains nothing from more, and holds less at a time
_FOREACH = _updates(foreach.advance, foreach.pull, foreach.TOGETHER)
_chosen = Kernels.auto  # of the process, as autograd runs the backward pass on CUDA in threads of its own


@contextmanager
def using(kernels: Kernels) -> Iterator[None]:
    """Updates inside the block are made by `kernels`, in all threads; `fused` is for tensors on CUDA, and those on a
    CPU are updated as by `auto`.
    """
    global _chosen
    before, _chosen = _chosen, kernels
    try:
        yield
    finally:
        _chosen = before


def updates(device: torch.device, kernels: Kernels | None = None) -> Updates:
    """The update functions for tensors on `device` by `kernels`, None for what `using` says.

    A rule that has no multi-tensor form goes tensor by tensor in plain torch on every device, and so does a subclass of
    one that has: forms belong to the exact class. `fused` reads and writes memory less often than `foreach`, but the
    two have never been timed on a GPU; until then `auto` takes `foreach`, which needs no compiler.

    Raises:
        ModuleNotFoundError: `fused` is asked for and Triton is not installed.
    """
    on_cuda = device.type == "cuda"
    if kernels is None:
        kernels = Kernels.auto if _chosen is Kernels.fused and not on_cuda else _chosen
    if kernels is Kernels.auto:
        kernels = Kernels.foreach if on_cuda else Kernels.reference
    if kernels is not Kernels.fused:
        return _FOREACH if kernels is Kernels.foreach else _REFERENCE
    from common.engine.cuda import fused

    return _updates(fused.advance, fused.pull, foreach.TOGETHER)


def bf16(device: torch.device) -> torch.autocast:
    """Around the body of a loss: its matrix products run in bfloat16, and their gradients too.

    Weights stay float32, and so do their gradients, the rule's moments and the outer gradient, because a cast is an
    operation of the graph like any other. Casts are not cached: a cache would serve a second forward pass with casts
    that belong to the graph of the first, or to none.

    Bfloat16 rounds some sums to exactly 0 that are not: there AdamW's derivative by the gradient is that at 0, about
    1 / eps, and a single such entry can swamp an exact outer gradient. With AdamW inside, take an eps that is not small
    beside the gradients, or a floor.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
