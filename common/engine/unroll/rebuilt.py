"""The exact unroll without its graph: one node that keeps the steps' gradients and rebuilds one step at a time.

With g_n = grad L(w_n), w_{n+1} = U(w_n, g_n, s_n, r_n) and cotangents w', s' of what follows step n, its reverse is

    w*, g*, s*, r* = U pulled back by (w', s')        by hand, elementwise (common.engine.rules)
    w_n' = w* + (d g_n / d w_n)^T g*                  a Hessian-vector product: one step's graph is alive

and what else the loss depends on gets (d g_n / d phi)^T g*. A projection after the step is played again, and w' pulled
back through it first. Memory is one step's graph and one copy of the fast weights
a step; time is one more forward and backward pass a step than with the graph of all steps stored.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.derivatives import InnerLoss, Parts, parts_at, product
from common.engine.met import telling
from common.engine.rates import Rates
from common.engine.reached import steady
from common.engine.rules import Buffers, RuleState, UpdateRule
from common.engine.settings import Snapshots
from common.engine.together import bound, clip_of, picked, pull_clipped
from common.engine.twice.policy import refuse_third_derivative
from common.engine.unroll.descent import Record, descend
from common.engine.unroll.guard import Guard, coarser
from common.engine.unroll.projection import Projection, pulled, settled
from common.engine.unroll.scenes import Scenes
from common.engine.unroll.tape import GradientTape, HostTape, Moves, Tape
from common.engine.weights import Weights


@dataclass
class _Plan:
    """What the node needs besides the tensors that it is differentiated by."""

    loss: InnerLoss
    parts: Parts
    steps: int
    rule: UpdateRule
    rates: Rates
    count: int
    """Steps that the rule has taken before."""
    project: Projection | None
    names: list[str]
    also: list[Tensor]
    snapshots: Snapshots
    losses: list[Tensor]
    """Filled by the forward pass."""

    def split(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], list[Buffers]]:
        """Weights, and the buffers of each; what follows them is left out."""
        size, each = len(self.names), self.rule.buffers if self.count else 0
        return tensors[:size], [list(tensors[size + each * i : size + each * (i + 1)]) for i in range(size)]


def rebuilt(
    loss: InnerLoss,
    start: Weights,
    parts: Parts,
    *,
    steps: int,
    rule: UpdateRule,
    rates: Rates,
    state: RuleState,
    project: Projection | None,
    also: Sequence[Tensor],
    snapshots: Snapshots,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """As `common.engine.unroll.descent.descend`, differentiable in start, state, rates and `also`: all tensors of loss
    and projection that learn."""
    learning = [tensor for tensor in also if tensor.requires_grad]  # autograd refuses to differentiate by others
    plan = _Plan(loss, parts, steps, rule, rates, state.count, project, list(start), learning, snapshots, [])
    before = [buffer for name in start for buffer in state.buffers.get(name, [])]
    with torch.enable_grad():
        found = _Rebuilt.apply(plan, rates.rates(), *start.values(), *before, *learning)  # type: ignore[no-untyped-call]
    size, each = len(start), rule.buffers
    buffers = {name: list(found[size + each * i : size + each * (i + 1)]) for i, name in enumerate(start)}
    return dict(zip(start, found, strict=False)), RuleState(state.count + steps, buffers), plan.losses


class _Rebuilt(torch.autograd.Function):
    """Inputs: plan, rates [groups, steps], start weights, buffers before, other tensors; outputs: weights and buffers
    afterwards."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, rates: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, before = plan.split(tensors)
        start, state = dict(zip(plan.names, weights, strict=True)), dict(zip(plan.names, before, strict=True))
        ctx.plan = plan
        with steady(), ExitStack() as stack:  # compiled steps are rebuilt from what they found here
            ctx.record = record = _record(plan, weights, before)
            stack.enter_context(record.scenes.recording())
            fast, after, plan.losses[:] = descend(
                plan.loss, start, plan.parts, steps=plan.steps, rule=plan.rule, rates=plan.rates,
                state=RuleState(plan.count, state), project=plan.project, record=record,
            )  # fmt: skip
        plan.rule = record.tape.moves.rule = bound(plan.rule, start, plan.losses[0])
        ctx.save_for_backward(rates, *tensors)
        ctx.set_materialize_grads(False)
        return (*fast.values(), *(buffer for own in after.buffers.values() for buffer in own))

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        plan, record, ctx.record = ctx.plan, ctx.record, None
        if record is None:
            raise RuntimeError(
                "a second backward pass through rebuilt inner steps: the first one has used up what was kept of them; "
                "adapt again, or use inner.unroll=stored"
            )
        rates, *saved = ctx.saved_tensors  # unpacking notices what was written to meanwhile
        found: list[Tensor | None] = record.scenes.ambient.run(_reverse, plan, record, rates, saved, bars)
        record.guard.check()
        return (None, *found)


def _reverse(
    plan: _Plan, record: Record, rates: Tensor, saved: Sequence[Tensor], bars: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Cotangents of rates, start weights, buffers before and other tensors from those of the outputs."""
    start, _ = plan.split(saved)
    tape, guard = record.tape, record.guard
    number, rate_bars = plan.rates.table(), torch.zeros_like(rates) if rates.requires_grad else None
    weight_bars = [_copy(bar, w) for bar, w in zip(bars, start, strict=False)]
    buffer_bars = [_buffer_bars(bars, w, i, len(start), plan.rule.buffers) for i, w in enumerate(start)]
    also_bars = [torch.zeros_like(x) for x in plan.also]
    update, clip = updates(start[0].device), clip_of(plan.rule)
    groups = update.groups(start) if plan.project is None else [list(range(len(start)))]
    guard.order = [i for group in groups for i in group]
    for step in reversed(range(plan.steps)):
        at: Weights = {}
        vector: list[Tensor] = []
        after_clip: list[Tensor] = []
        for group in groups:
            names = [plan.names[i] for i in group]
            w, g, after, moved = tape.recall(step, group)
            if plan.project is not None:
                landed = dict(zip(names, moved, strict=True))
                if step == plan.steps - 1:
                    guard.recalled(plan.steps, list(settled(plan.project, landed).values()))
                weight_bars, others = pulled(plan.project, landed, weight_bars, plan.also)
                _add(also_bars, others)
            bars_of = [weight_bars[i] for i in group], [buffer_bars[i] for i in group]
            numbers = [number(name, step) for name in names]
            after_clip.extend(x.clone() for x in g if clip)
            found = update.pull(picked(plan.rule, group), w, g, numbers, after, plan.count + step + 1, *bars_of)
            if rate_bars is not None:
                for name, rate_bar in zip(names, found, strict=True):
                    rate_bars[plan.rates.row[name], min(step, plan.rates.steps - 1)] += rate_bar
            at.update(zip(names, w, strict=True))
            vector.extend(g)
        if clip:
            pull_clipped(clip, after_clip, tape.norms[step], vector)
            after_clip.clear()  # before the product takes its memory
        guard.recalled(step, list(at.values()))
        with record.scenes.again(step), telling(None):
            for part in parts_at(plan.parts, step):
                through, others = product(plan.loss, at, part, vector, plan.also, guard.seen)
                _add(weight_bars, through)
                _add(also_bars, others)
                del through, others  # before the next part takes its memory
        guard.rebuilt(step, plan.losses[step])
    before_bars = [bar for own in buffer_bars for bar in own] if plan.count else []
    return [rate_bars, *weight_bars, *before_bars, *also_bars]


def _record(plan: _Plan, start: Sequence[Tensor], before: Sequence[Buffers]) -> Record:
    device, rough = start[0].device, reduce(coarser, [w.dtype for w in start])
    if torch.is_autocast_enabled(device.type):
        rough = coarser(rough, torch.get_autocast_dtype(device.type))
    given = plan.parts if callable(plan.parts) else None
    scenes = Scenes(device, plan.loss, given, plan.project)
    return Record(_tape(plan, start, before), scenes, Guard(start, rough, plan.project is not None))


def _tape(plan: _Plan, start: Sequence[Tensor], before: Sequence[Buffers]) -> Tape:
    number, project = plan.rates.table(), plan.project

    def rate_of(index: int, step: int) -> float:
        return number(plan.names[index], step)

    def again(weights: list[Tensor]) -> list[Tensor]:
        assert project is not None
        return list(settled(project, dict(zip(plan.names, weights, strict=True))).values())

    moves = Moves(plan.rule, rate_of, plan.count, None if project is None else again)
    if plan.snapshots is Snapshots.host:
        return HostTape(moves, start[0].device)
    return GradientTape(start, before, plan.steps, moves)


def _add(bars: Sequence[Tensor], more: Sequence[Tensor]) -> None:
    for bar, share in zip(bars, more, strict=True):
        bar.add_(share)


def _copy(bar: Tensor | None, like: Tensor) -> Tensor:
    """Autograd may hand the same tensor to others, and the reverse works in place."""
    return torch.zeros_like(like) if bar is None else bar.clone()


def _buffer_bars(bars: Sequence[Tensor | None], like: Tensor, index: int, size: int, each: int) -> Buffers:
    own = bars[size + each * index : size + each * (index + 1)]
    return [_copy(bar, like) for bar in own] if any(bar is not None for bar in own) else []
