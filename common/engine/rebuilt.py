"""The exact unroll without its graph: one node that keeps the steps' gradients and rebuilds one step at a time.

With g_n = grad L(w_n), w_{n+1} = U(w_n, g_n, s_n, r_n) and cotangents w', s' of what follows step n, its reverse is

    w*, g*, s*, r* = U pulled back by (w', s')        by hand, elementwise (common.engine.rules)
    w_n' = w* + (d g_n / d w_n)^T g*                  a Hessian-vector product: one step's graph is alive

and what else the loss depends on gets (d g_n / d phi)^T g*. Memory is one step's graph and one copy of the fast weights
a step; time is one more forward and backward pass a step than with the graph of all steps stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.derivatives import InnerLoss, product, replayed
from common.engine.descent import descend
from common.engine.rates import LearnedRates
from common.engine.rules import Buffers, RuleState, UpdateRule
from common.engine.settings import Snapshots
from common.engine.tape import GradientTape, HostTape, Tape
from common.engine.twice.policy import refuse_third_derivative
from common.engine.weights import Weights


@dataclass
class _Plan:
    """What the node needs besides the tensors that it is differentiated by."""

    loss: InnerLoss
    parts: Sequence[Any]
    steps: int
    rule: UpdateRule
    rates: LearnedRates
    names: list[str]
    also: list[Tensor]
    snapshots: Snapshots
    losses: list[Tensor]
    """Filled by the forward pass."""


def rebuilt(
    loss: InnerLoss,
    start: Weights,
    parts: Sequence[Any],
    *,
    steps: int,
    rule: UpdateRule,
    rates: LearnedRates,
    also: Sequence[Tensor],
    snapshots: Snapshots,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """As `common.engine.descent.descend`, differentiable in start, rates and `also`: all tensors of the loss that
    learn."""
    learning = [tensor for tensor in also if tensor.requires_grad]  # autograd refuses to differentiate by others
    plan = _Plan(loss, parts, steps, rule, rates, list(start), learning, snapshots, [])
    with torch.enable_grad():
        found = list(_Rebuilt.apply(plan, rates.rates(), *start.values(), *learning))  # type: ignore[no-untyped-call]
    size = len(start)
    buffers = {
        name: found[size + rule.buffers * i : size + rule.buffers * (i + 1)] for i, name in enumerate(plan.names)
    }
    return dict(zip(plan.names, found, strict=False)), RuleState(steps, buffers), plan.losses


class _Rebuilt(torch.autograd.Function):
    """Inputs: plan, rates [groups, steps], start weights, other tensors; outputs: weights and buffers afterwards."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, rates: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        start = dict(zip(plan.names, tensors, strict=False))
        ctx.plan, ctx.tape = plan, _tape(plan, list(start.values()))
        weights, state, plan.losses[:] = descend(
            plan.loss, start, plan.parts, steps=plan.steps, rule=plan.rule, rates=plan.rates, tape=ctx.tape
        )
        ctx.save_for_backward(rates, *tensors)
        ctx.set_materialize_grads(False)
        return (*weights.values(), *(buffer for own in state.buffers.values() for buffer in own))

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        plan, tape, ctx.tape = ctx.plan, ctx.tape, None
        if tape is None:
            raise RuntimeError(
                "a second backward pass through rebuilt inner steps: the first one has used up what was kept of them; "
                "adapt again, or use inner.unroll=stored"
            )
        rates, *saved = ctx.saved_tensors  # unpacking notices what was written to meanwhile
        start = saved[: len(plan.names)]
        number, rate_bars = plan.rates.table(), torch.zeros_like(rates)
        weight_bars = [_copy(bar, w) for bar, w in zip(bars, start, strict=False)]
        buffer_bars = [_buffer_bars(bars, w, i, len(start), plan.rule.buffers) for i, w in enumerate(start)]
        also_bars = [torch.zeros_like(x) for x in plan.also]
        update = updates(start[0].device)
        for step in reversed(range(plan.steps)):
            at: Weights = {}
            vector: list[Tensor] = []
            for group in update.groups(start):
                names = [plan.names[i] for i in group]
                w, g, after = tape.recall(step, group)
                bars_of = [weight_bars[i] for i in group], [buffer_bars[i] for i in group]
                found = update.pull(plan.rule, w, g, [number(name, step) for name in names], after, step + 1, *bars_of)
                for name, rate_bar in zip(names, found, strict=True):
                    rate_bars[plan.rates.row[name], min(step, plan.rates.steps - 1)] += rate_bar
                at.update(zip(names, w, strict=True))
                vector.extend(g)
            with replayed(tape.draws[step], start[0].device):
                for part in plan.parts:
                    through, others = product(plan.loss, at, part, vector, plan.also)
                    for bar, more in zip([*weight_bars, *also_bars], [*through, *others], strict=True):
                        bar.add_(more)
                    del through, others, more  # before the next part takes its memory
        return (None, rate_bars, *weight_bars, *also_bars)


def _tape(plan: _Plan, start: list[Tensor]) -> Tape:
    number = plan.rates.table()

    def rate_of(index: int, step: int) -> float:
        return number(plan.names[index], step)

    if plan.snapshots is Snapshots.host:
        return HostTape(plan.rule, rate_of, start[0].device)
    return GradientTape(start, plan.steps, plan.rule, rate_of)


def _copy(bar: Tensor | None, like: Tensor) -> Tensor:
    """Autograd may hand the same tensor to others, and the reverse works in place."""
    return torch.zeros_like(like) if bar is None else bar.clone()


def _buffer_bars(bars: Sequence[Tensor | None], like: Tensor, index: int, size: int, each: int) -> Buffers:
    own = bars[size + each * index : size + each * (index + 1)]
    return [_copy(bar, like) for bar in own] if any(bar is not None for bar in own) else []
