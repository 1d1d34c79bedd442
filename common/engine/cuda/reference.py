"""Update rules over many tensors, one after the other: what multi-tensor forms are held against and fall back to."""

from collections.abc import Sequence

from torch import Tensor

from common.engine.rules import Buffers, UpdateRule


def advance(
    rule: UpdateRule,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    buffers: Sequence[Buffers],
    count: int,
) -> None:
    """`rule.advance` of every tensor."""
    for w, g, rate, own in zip(weights, gradients, rates, buffers, strict=True):
        rule.advance(w, g, rate, own, count)


def pull(
    rule: UpdateRule,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    after: Sequence[Buffers],
    count: int,
    bars: Sequence[Tensor],
    buffer_bars: Sequence[Buffers],
) -> list[Tensor]:
    """`rule.pull` of every tensor; returns the rates' cotangents, each of shape []."""
    each = zip(weights, gradients, rates, after, bars, buffer_bars, strict=True)
    return [rule.pull(w, g, rate, own, count, bar, own_bars) for w, g, rate, own, bar, own_bars in each]


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
