"""Update rules over many tensors at once as one Triton kernel each: every number is read once and written once.

A kernel finds its tensors through a table of addresses, so weights, gradients and moments stay where they are. Each
program takes one block of one tensor; its share of the rate's cotangent goes to a number of its own, and these are
summed afterwards, in order. Float32 only, as fast weights and moments are on CUDA. A kernel is for the exact class of a
rule; any other, subclasses too, walks tensor by tensor by its own `advance` and `pull`. AdamW with a floor goes by
`common.engine.cuda.foreach`. Imported only when asked for
(`common.engine.cuda.updates`): Triton need not be installed otherwise.
"""
# Kernels are read by Triton, whose types are not Python's.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disallow-untyped-calls=False

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor

from common.engine.cuda import foreach, reference
from common.engine.rules import SGD, AdamW, Buffers, Momentum, UpdateRule
from common.errors import UserError

BLOCK = 1024
"""Entries that one program takes."""
RULES = (SGD, Momentum, AdamW)
"""Classes that have kernels."""


def advance(
    rule: UpdateRule,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    buffers: Sequence[Buffers],
    count: int,
) -> None:
    """As `rule.advance` of every tensor.

    Raises:
        UserError: a tensor is not float32, and the rule has a kernel.
    """
    if type(rule) not in RULES:
        return reference.advance(rule, weights, gradients, rates, buffers, count)
    if _has_floor(rule):
        return foreach.advance(rule, weights, gradients, rates, buffers, count)
    if not buffers[0]:
        for w, own in zip(weights, buffers, strict=True):
            own.extend(torch.empty_like(w) for _ in range(rule.buffers))
    columns = [weights, gradients, *([own[i] for own in buffers] for i in range(rule.buffers))]
    first = count == 1
    if type(rule) is SGD:
        _launch(_sgd_advance, columns, (0,), [[-r for r in rates]], rule.weight_decay)
    elif type(rule) is Momentum:
        scalars = (rule.momentum, rule.weight_decay, first)
        _launch(_momentum_advance, columns, (0, 2), [[-r for r in rates]], *scalars)
    elif type(rule) is AdamW:
        steps = [-r / (1 - rule.beta1**count) for r in rates]
        keeps = [1 - r * rule.weight_decay for r in rates]
        betas = (rule.beta1, 1 - rule.beta1, rule.beta2, 1 - rule.beta2)
        _launch(_adamw_advance, columns, (0, 2, 3), [steps, keeps], *betas, rule.eps, 1 - rule.beta2**count, first)


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
    """As `rule.pull` of every tensor; returns the rates' cotangents, each of shape [].

    Raises:
        UserError: a tensor is not float32, and the rule has a kernel.
    """
    if type(rule) not in RULES:
        return reference.pull(rule, weights, gradients, rates, after, count, bars, buffer_bars)
    if _has_floor(rule):
        return foreach.pull(rule, weights, gradients, rates, after, count, bars, buffer_bars)
    moments = [[own[i] for own in after] for i in range(rule.buffers)]
    given = [[own[i] if own else None for own in buffer_bars] for i in range(rule.buffers)]
    columns = [weights, gradients, bars, *moments, *given]
    if type(rule) is SGD:
        numbers = [[-r for r in rates], [1 - r * rule.weight_decay for r in rates]]
        found = _launch(_sgd_pull, columns, (1, 2), numbers, rule.weight_decay)
    elif type(rule) is Momentum:
        found = _launch(_momentum_pull, columns, (1, 2, 3), [[-r for r in rates]], rule.momentum, rule.weight_decay)
    else:
        assert type(rule) is AdamW
        correction1, correction2 = 1 - rule.beta1**count, 1 - rule.beta2**count
        numbers = [[-r / correction1 for r in rates], [1 - r * rule.weight_decay for r in rates]]
        betas = (rule.beta1, 1 - rule.beta1, rule.beta2, 2 * (1 - rule.beta2))
        scalars = (rule.eps, 1 / correction1, correction2, -2 * correction2, rule.weight_decay)
        found = _launch(_adamw_pull, columns, (1, 2, 3, 4), numbers, *betas, *scalars)
    for index, own in enumerate(buffer_bars):
        own[:] = [column[index] for column in moments] if count > 1 else []
    return list(found.unbind())


def _has_floor(rule: UpdateRule) -> bool:
    """AdamW's floor needs a whole tensor before its first entry moves, which a program of one block has not."""
    return isinstance(rule, AdamW) and bool(rule.floor or rule.zero_floor)


def _launch(
    kernel: Any,
    columns: Sequence[Sequence[Tensor | None]],
    written: Sequence[int],
    numbers: Sequence[Sequence[float]],
    *scalars: float | bool,
) -> Tensor:
    """Run `kernel` over all blocks of all tensors; returns the sums over each tensor's blocks, shape [tensors].

    Args:
        kernel: called with the table of addresses [columns, tensors] (0 where there is no tensor), the numbers
            [numbers, tensors], one number a block to write to, the blocks' tables and the scalars.
        columns: tensors by role, one a weight.
        written: columns that the kernel writes to.
        numbers: by role, one a weight.
        scalars: the same for all tensors.
    """
    dense = [[None if x is None else _checked(x) for x in column] for column in columns]
    weights = [x for x in dense[0] if x is not None]
    device = weights[0].device
    owner, begins, sizes, blocks = _blocks(tuple(w.numel() for w in weights), device)
    addresses = torch.tensor([[0 if x is None else x.data_ptr() for x in column] for column in dense])
    table = torch.tensor(numbers, dtype=torch.float32)
    partial = torch.zeros(len(owner), device=device)
    if len(owner):
        places = (owner, begins, sizes, len(weights))
        kernel[(len(owner),)](addresses.to(device), table.to(device), partial, *places, *scalars, BLOCK=BLOCK)
    for index in written:
        for x, flat in zip(columns[index], dense[index], strict=True):
            if x is not None and flat is not None and flat is not x:
                x.copy_(flat)
    # unsafe: do not look whether the lengths add up, which would wait for the device
    return torch.segment_reduce(partial.double(), "sum", lengths=blocks, unsafe=True, initial=0).float()


def _checked(x: Tensor) -> Tensor:
    """The tensor laid out in a row, copied only if it is not; kernels count on it."""
    if x.dtype is not torch.float32:
        raise UserError(
            f"runtime.kernels=fused: the fused kernels are for float32, not {x.dtype}; use runtime.kernels=foreach"
        )
    return x.contiguous()


@lru_cache(maxsize=64)
def _blocks(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of every block its tensor and first entry; of every tensor its entries and blocks."""
    size = torch.tensor(sizes)
    blocks = (size + BLOCK - 1) // BLOCK
    owner = torch.repeat_interleave(torch.arange(len(sizes)), blocks)
    begins = (torch.arange(len(owner)) - (blocks.cumsum(0) - blocks)[owner]) * BLOCK
    return owner.to(device), begins.to(device), size.to(device), blocks.to(device)


@triton.jit
def _place(owner, begins, sizes, BLOCK: tl.constexpr):
    """The tensor of this program, its entries' places in it, and which of them exist."""
    block = tl.program_id(0)
    tensor = tl.load(owner + block)
    at = tl.load(begins + block) + tl.arange(0, BLOCK)
    return tensor, at, at < tl.load(sizes + tensor)


@triton.jit
def _column(addresses, column, tensor, tensors):
    """Pointer to the first entry of a tensor."""
    return tl.load(addresses + column * tensors + tensor).to(tl.pointer_type(tl.float32))


@triton.jit
def _read(addresses, column, tensor, tensors, at, there):
    """Entries of a tensor, zeros where there is no tensor."""
    address = tl.load(addresses + column * tensors + tensor)
    return tl.load(address.to(tl.pointer_type(tl.float32)) + at, mask=tl.where(address != 0, there, False), other=0.0)


@triton.jit
def _sgd_advance(addresses, numbers, partial, owner, begins, sizes, tensors, decay, BLOCK: tl.constexpr):
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    w = _read(addresses, 0, tensor, tensors, at, there)
    g = _read(addresses, 1, tensor, tensors, at, there)
    w += tl.load(numbers + tensor) * (g + decay * w)
    tl.store(_column(addresses, 0, tensor, tensors) + at, w, mask=there)


@triton.jit
def _sgd_pull(addresses, numbers, partial, owner, begins, sizes, tensors, decay, BLOCK: tl.constexpr):
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    w = _read(addresses, 0, tensor, tensors, at, there)
    g = _read(addresses, 1, tensor, tensors, at, there)
    bar = _read(addresses, 2, tensor, tensors, at, there)
    tl.store(partial + tl.program_id(0), -tl.sum(bar * (g + decay * w), 0))
    tl.store(_column(addresses, 1, tensor, tensors) + at, tl.load(numbers + tensor) * bar, mask=there)
    tl.store(_column(addresses, 2, tensor, tensors) + at, tl.load(numbers + tensors + tensor) * bar, mask=there)


@triton.jit
def _momentum_advance(
    addresses,
    numbers,
    partial,
    owner,
    begins,
    sizes,
    tensors,
    momentum,
    decay,
    FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    w = _read(addresses, 0, tensor, tensors, at, there)
    velocity = _read(addresses, 1, tensor, tensors, at, there) + decay * w
    if not FIRST:
        velocity += momentum * _read(addresses, 2, tensor, tensors, at, there)
    tl.store(_column(addresses, 2, tensor, tensors) + at, velocity, mask=there)
    tl.store(_column(addresses, 0, tensor, tensors) + at, w + tl.load(numbers + tensor) * velocity, mask=there)


@triton.jit
def _momentum_pull(addresses, numbers, partial, owner, begins, sizes, tensors, momentum, decay, BLOCK: tl.constexpr):
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    bar = _read(addresses, 2, tensor, tensors, at, there)
    velocity = _read(addresses, 3, tensor, tensors, at, there)
    tl.store(partial + tl.program_id(0), -tl.sum(bar * velocity, 0))
    g = tl.load(numbers + tensor) * bar + _read(addresses, 4, tensor, tensors, at, there)
    tl.store(_column(addresses, 1, tensor, tensors) + at, g, mask=there)
    tl.store(_column(addresses, 3, tensor, tensors) + at, momentum * g, mask=there)
    tl.store(_column(addresses, 2, tensor, tensors) + at, bar + decay * g, mask=there)


@triton.jit
def _adamw_advance(
    addresses, numbers, partial, owner, begins, sizes, tensors, beta1, rest1, beta2, rest2, eps, correction2,
    FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    w = _read(addresses, 0, tensor, tensors, at, there)
    g = _read(addresses, 1, tensor, tensors, at, there)
    mean, square = rest1 * g, rest2 * g * g
    if not FIRST:
        mean += beta1 * _read(addresses, 2, tensor, tensors, at, there)
        square += beta2 * _read(addresses, 3, tensor, tensors, at, there)
    tl.store(_column(addresses, 2, tensor, tensors) + at, mean, mask=there)
    tl.store(_column(addresses, 3, tensor, tensors) + at, square, mask=there)
    scale = tl.sqrt_rn(square / correction2) + eps
    step, keep = tl.load(numbers + tensor), tl.load(numbers + tensors + tensor)
    tl.store(_column(addresses, 0, tensor, tensors) + at, keep * w + step * mean / scale, mask=there)


@triton.jit
def _adamw_pull(
    addresses, numbers, partial, owner, begins, sizes, tensors, beta1, rest1, beta2, twice2, eps, inverse1, correction2,
    divisor2, decay, BLOCK: tl.constexpr,
):  # fmt: skip
    tensor, at, there = _place(owner, begins, sizes, BLOCK)
    w = _read(addresses, 0, tensor, tensors, at, there)
    g = _read(addresses, 1, tensor, tensors, at, there)
    bar = _read(addresses, 2, tensor, tensors, at, there)
    root = tl.sqrt_rn(_read(addresses, 4, tensor, tensors, at, there) / correction2)
    scale = root + eps
    moved = _read(addresses, 3, tensor, tensors, at, there) / scale
    # entries beyond the end: bar is 0 there, but with eps = 0 so is the scale
    tl.store(partial + tl.program_id(0), -tl.sum(tl.where(there, bar * (moved * inverse1 + decay * w), 0.0), 0))
    step, keep = tl.load(numbers + tensor), tl.load(numbers + tensors + tensor)
    mean_bar = bar / scale * step
    flat = root == 0
    square_bar = tl.where(flat, 0.0, moved * mean_bar / tl.where(flat, 1.0, divisor2 * root))
    mean_bar += _read(addresses, 5, tensor, tensors, at, there)
    square_bar += _read(addresses, 6, tensor, tensors, at, there)
    tl.store(_column(addresses, 1, tensor, tensors) + at, twice2 * square_bar * g + rest1 * mean_bar, mask=there)
    tl.store(_column(addresses, 3, tensor, tensors) + at, beta1 * mean_bar, mask=there)
    tl.store(_column(addresses, 4, tensor, tensors) + at, beta2 * square_bar, mask=there)
    tl.store(_column(addresses, 2, tensor, tensors) + at, keep * bar, mask=there)
