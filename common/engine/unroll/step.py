"""One step of a rule over all tensors as one node of the autograd graph.

It saves weights, gradients and moments alone, where the same formula written in torch operations keeps two to three
times as much.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.rules import Buffers, RuleState, UpdateRule
from common.engine.together import picked
from common.engine.twice.policy import refuse_third_derivative
from common.engine.weights import Weights


def step(
    rule: UpdateRule, weights: Weights, gradients: Weights, state: RuleState, rates: Mapping[str, Tensor]
) -> tuple[Weights, RuleState]:
    """Weights and state after one step of `rule`, differentiable in everything that went in; nothing is written to.

    Shapes are those of `weights`; a rate has shape [].
    """
    names, count = list(weights), state.count + 1
    before = [buffer for name in names for buffer in state.buffers.get(name, [])]
    given = [*weights.values(), *(gradients[name] for name in names), *(rates[name] for name in names), *before]
    found = list(_Step.apply(rule, count, len(names), *given))  # type: ignore[no-untyped-call]
    size = rule.buffers
    after = {name: found[len(names) + size * i : len(names) + size * (i + 1)] for i, name in enumerate(names)}
    return dict(zip(names, found, strict=False)), RuleState(count, after)


class _Step(torch.autograd.Function):
    """All tensors of one step as one node of the graph.

    Inputs: weights, gradients, rates, buffers before; outputs: weights, buffers after.
    """

    @staticmethod
    def forward(ctx: Any, rule: UpdateRule, count: int, size: int, *given: Tensor) -> tuple[Tensor, ...]:
        weights, gradients, rates, before = _parts(given, size)
        numbers = numbers_of(rates)
        moved = [w.clone() for w in weights]
        after = [[b.clone() for b in own] for own in _per_weight(before, size)]
        updates(moved[0].device).advance(rule, moved, gradients, numbers, after, count)
        flat = [buffer for own in after for buffer in own]
        ctx.rule, ctx.count, ctx.size, ctx.numbers = rule, count, size, numbers
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights, *gradients, *flat)
        return (*moved, *flat)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        size, saved = ctx.size, list(ctx.saved_tensors)
        weights, gradients, after = saved[:size], saved[size : 2 * size], _per_weight(saved[2 * size :], size)
        into: list[list[Tensor | None]] = [[], [], [], []]
        update = updates(weights[0].device)
        for group in update.groups(weights):
            w, g, bar = [weights[i] for i in group], [gradients[i].clone() for i in group], []
            buffers, states = [[b.clone() for b in after[i]] for i in group], []
            for i in group:
                own = bars[size + ctx.rule.buffers * i : size + ctx.rule.buffers * (i + 1)]
                bar.append(_copy(bars[i], weights[i]))
                states.append([_copy(b, weights[i]) for b in own] if any(b is not None for b in own) else [])
            numbers = [ctx.numbers[i] for i in group]
            rate_bars = update.pull(picked(ctx.rule, group), w, g, numbers, buffers, ctx.count, bar, states)
            for column, found in zip(into, (bar, g, rate_bars, [b for own in states for b in own]), strict=True):
                column.extend(found)
        return (None, None, None, *into[0], *into[1], *into[2], *into[3])


def _parts(given: Sequence[Tensor], size: int) -> tuple[Sequence[Tensor], ...]:
    return given[:size], given[size : 2 * size], given[2 * size : 3 * size], given[3 * size :]


def _per_weight(buffers: Sequence[Tensor], size: int) -> list[Buffers]:
    """A flat list of buffers, weight by weight, as one list a weight."""
    each = len(buffers) // size
    return [list(buffers[each * i : each * (i + 1)]) for i in range(size)]


def _copy(bar: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if bar is None else bar.clone()


def numbers_of(rates: Sequence[Tensor]) -> list[float]:
    """The values of rates, read at once."""
    return [float(rate) for rate in torch.stack([rate.detach() for rate in rates]).tolist()]
