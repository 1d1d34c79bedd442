"""Update rules over many tensors at once with torch's multi-tensor operations; the formulas are those of
`common.engine.rules`.

What is a kernel launch a tensor and operation there is one for some hundred tensors here. Values agree with the rules'
own to rounding: a product with a rate of each tensor's own is rounded before it is added. A form is for the exact class
of a rule: a subclass may do something else, and walks tensor by tensor by its own `advance` and `pull`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.engine.cuda import reference
from common.engine.rules import SGD, AdamW, Buffers, Momentum, UpdateRule

TOGETHER = 2**24
"""Entries of a group on CUDA: 64 MiB of each float32 temporary, and by far enough work for all processors of a GPU."""


def advance(
    rule: UpdateRule,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    buffers: Sequence[Buffers],
    count: int,
) -> None:
    """As `rule.advance` of every tensor."""
    for group in reference.groups(weights, TOGETHER):  # bounds the temporaries
        w = [weights[i] for i in group]
        # one odd layout would send the whole group down torch's slow path, tensor by tensor
        g = [_laid_out(gradients[i], weights[i]) for i in group]
        numbers, own = [rates[i] for i in group], [buffers[i] for i in group]
        if type(rule) is SGD:
            _sgd_advance(rule, w, g, numbers)
        elif type(rule) is Momentum:
            _momentum_advance(rule, w, g, numbers, own)
        elif type(rule) is AdamW:
            _adamw_advance(rule, w, g, numbers, own, count)
        else:
            reference.advance(rule, w, g, numbers, own, count)


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
    """As `rule.pull` of every tensor; returns the rates' cotangents, each of shape []."""
    w, g, bar = list(weights), list(gradients), list(bars)
    if type(rule) is SGD:
        return _sgd_pull(rule, w, g, rates, bar)
    if type(rule) is Momentum:
        return _momentum_pull(rule, g, rates, after, count, bar, buffer_bars)
    if type(rule) is AdamW:
        return _adamw_pull(rule, w, g, rates, after, count, bar, buffer_bars)
    return reference.pull(rule, w, g, rates, after, count, bar, buffer_bars)


def _sgd_advance(rule: SGD, w: list[Tensor], g: list[Tensor], rates: Sequence[float]) -> None:
    moves = list(torch._foreach_add(g, w, alpha=rule.weight_decay)) if rule.weight_decay else g
    _subtract(w, moves, rates)


def _sgd_pull(rule: SGD, w: list[Tensor], g: list[Tensor], rates: Sequence[float], bar: list[Tensor]) -> list[Tensor]:
    if rule.weight_decay:
        torch._foreach_add_(g, w, alpha=rule.weight_decay)
    rate_bars = -_dots(bar, g)
    torch._foreach_copy_(g, bar)
    torch._foreach_mul_(g, [-rate for rate in rates])
    if rule.weight_decay:
        torch._foreach_mul_(bar, [1 - rate * rule.weight_decay for rate in rates])
    return list(rate_bars.unbind())


def _momentum_advance(
    rule: Momentum, w: list[Tensor], g: list[Tensor], rates: Sequence[float], buffers: Sequence[Buffers]
) -> None:
    if rule.weight_decay:
        g = list(torch._foreach_add(g, w, alpha=rule.weight_decay))
    if buffers[0]:
        velocity = [own[0] for own in buffers]
        torch._foreach_mul_(velocity, rule.momentum)
        torch._foreach_add_(velocity, g)
    else:
        velocity = g if rule.weight_decay else [x.clone() for x in g]
        _fill(buffers, velocity)
    _subtract(w, velocity, rates)


def _momentum_pull(
    rule: Momentum,
    g: list[Tensor],
    rates: Sequence[float],
    after: Sequence[Buffers],
    count: int,
    bar: list[Tensor],
    buffer_bars: Sequence[Buffers],
) -> list[Tensor]:
    velocity = [own[0] for own in after]
    rate_bars = -_dots(bar, velocity)
    torch._foreach_copy_(g, bar)
    torch._foreach_mul_(g, [-rate for rate in rates])
    _add_given(g, buffer_bars, 0)
    if count > 1:
        torch._foreach_copy_(velocity, g)
        torch._foreach_mul_(velocity, rule.momentum)
    _fill(buffer_bars, *([velocity] if count > 1 else []))
    if rule.weight_decay:
        torch._foreach_add_(bar, g, alpha=rule.weight_decay)
    return list(rate_bars.unbind())


def _adamw_advance(
    rule: AdamW, w: list[Tensor], g: list[Tensor], rates: Sequence[float], buffers: Sequence[Buffers], count: int
) -> None:
    if buffers[0]:
        mean, square = [own[0] for own in buffers], [own[1] for own in buffers]
        torch._foreach_mul_(mean, rule.beta1)
        torch._foreach_add_(mean, g, alpha=1 - rule.beta1)
        torch._foreach_mul_(square, rule.beta2)
        torch._foreach_addcmul_(square, g, g, value=1 - rule.beta2)
    else:
        mean, square = list(torch._foreach_mul(g, 1 - rule.beta1)), list(torch._foreach_mul(g, g))
        torch._foreach_mul_(square, 1 - rule.beta2)
        _fill(buffers, mean, square)
    scale = torch._foreach_div(square, 1 - rule.beta2**count)
    torch._foreach_sqrt_(scale)
    least = [rule.least(root) for root in scale]
    torch._foreach_add_(scale, rule.eps)
    _add_least(scale, least)
    torch._foreach_mul_(w, [1 - rate * rule.weight_decay for rate in rates])
    torch._foreach_addcdiv_(w, mean, scale, [-rate / (1 - rule.beta1**count) for rate in rates])


def _adamw_pull(
    rule: AdamW,
    w: list[Tensor],
    g: list[Tensor],
    rates: Sequence[float],
    after: Sequence[Buffers],
    count: int,
    bar: list[Tensor],
    buffer_bars: Sequence[Buffers],
) -> list[Tensor]:
    """Names as in `AdamW.pull`."""
    correction1, correction2 = 1 - rule.beta1**count, 1 - rule.beta2**count
    moved, root = [own[0] for own in after], [own[1] for own in after]
    torch._foreach_div_(root, correction2)
    torch._foreach_sqrt_(root)
    scale = list(torch._foreach_add(root, rule.eps))
    _add_least(scale, [rule.least(own) for own in root])
    torch._foreach_div_(moved, scale)
    rate_bars = -(_dots(bar, moved) / correction1 + rule.weight_decay * _dots(bar, w))
    mean_bar = list(torch._foreach_div(bar, scale))
    torch._foreach_mul_(mean_bar, [-rate / correction1 for rate in rates])
    square_bar = moved
    torch._foreach_mul_(square_bar, mean_bar)
    # a root of 0 makes 0 / -tiny; no other root is as small, as it is the root of a number
    torch._foreach_mul_(square_bar, torch._foreach_sign(root))
    torch._foreach_mul_(root, -2 * correction2)
    torch._foreach_clamp_max_(root, -torch.finfo(root[0].dtype).tiny)
    torch._foreach_div_(square_bar, root)
    _add_given(mean_bar, buffer_bars, 0)
    _add_given(square_bar, buffer_bars, 1)
    torch._foreach_mul_(g, square_bar)
    torch._foreach_mul_(g, 2 * (1 - rule.beta2))
    torch._foreach_add_(g, mean_bar, alpha=1 - rule.beta1)
    if count > 1:
        torch._foreach_mul_(mean_bar, rule.beta1)
        torch._foreach_mul_(square_bar, rule.beta2)
    _fill(buffer_bars, *([mean_bar, square_bar] if count > 1 else []))
    torch._foreach_mul_(bar, [1 - rate * rule.weight_decay for rate in rates])
    return list(rate_bars.unbind())


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def _subtract(w: list[Tensor], moves: list[Tensor], rates: Sequence[float]) -> None:
    """w <- w - rate * move; torch has no form with a factor for each tensor that would spare the product's memory."""
    torch._foreach_add_(w, torch._foreach_mul(moves, [-rate for rate in rates]))


def _add_least(scales: Sequence[Tensor], least: Sequence[Tensor | None]) -> None:
    """Add AdamW's floor, a number or one a task for each tensor: no multi-tensor form takes other shapes quicker."""
    for scale, own in zip(scales, least, strict=True):
        if own is not None:
            scale.add_(own)


def _add_given(totals: Sequence[Tensor], bars: Sequence[Buffers], which: int) -> None:
    """Add the cotangents of one buffer, where there are any."""
    given = [(total, own[which]) for total, own in zip(totals, bars, strict=True) if own]
    if given:
        torch._foreach_add_([total for total, _ in given], [bar for _, bar in given])


def _fill(buffers: Sequence[Buffers], *columns: Sequence[Tensor]) -> None:
    """Buffers of every weight from one column a buffer; empty lists from none."""
    for index, own in enumerate(buffers):
        own[:] = [column[index] for column in columns]


def _dots(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product of every pair; torch has no multi-tensor form, so this is the launch a tensor that stays."""
    return torch.stack([torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)])
