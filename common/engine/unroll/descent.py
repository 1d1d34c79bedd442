"""Inner steps without a graph, in place on one working copy of the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.derivatives import InnerLoss, Parts, gradient, parts_at
from common.engine.rates import Rates
from common.engine.reached import steady
from common.engine.rules import RuleState, UpdateRule
from common.engine.together import bound, clip_of, clipped
from common.engine.unroll.guard import Guard
from common.engine.unroll.projection import Projection, settled
from common.engine.unroll.scenes import Scenes
from common.engine.unroll.tape import Tape
from common.engine.weights import Weights

FRESH = RuleState()
"""Before the first step."""


@dataclass(frozen=True)
class Record:
    """What is kept of the steps to rebuild them."""

    tape: Tape
    scenes: Scenes
    guard: Guard


Descent = Callable[..., tuple[Weights, RuleState, list[Tensor]]]
"""`descend`, or what stands for it without a tape (`common.engine.cuda.graphs.GraphedDescent`)."""


def descend(
    loss: InnerLoss,
    start: Weights,
    parts: Parts,
    *,
    steps: int,
    rule: UpdateRule,
    rates: Rates,
    state: RuleState = FRESH,
    project: Projection | None = None,
    record: Record | None = None,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """Take the first `steps` inner steps from `start` and the rule's `state`, which stay as they are.

    `record` is shown every step. Returns the adapted weights and the rule's state, both new tensors without graph, and
    the loss before each step.
    """
    rate = rates.table()
    return walk(loss, start, parts, steps=steps, rule=rule, rate=rate, state=state, project=project, record=record)


def walk(
    loss: InnerLoss,
    start: Weights,
    parts: Parts,
    *,
    steps: int,
    rule: UpdateRule,
    rate: Callable[[str, int], float],
    state: RuleState = FRESH,
    project: Projection | None = None,
    record: Record | None = None,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """`descend` at rates that have been read: (name, step) -> rate. Nothing here waits for the device."""
    update = updates(next(iter(start.values())).device)
    with torch.no_grad(), steady():
        weights = {name: w.detach().clone() for name, w in start.items()}
        buffers = [[b.detach().clone() for b in state.buffers.get(name, [])] for name in weights]
        losses = []
        for step in range(steps):
            if record is not None:
                record.scenes.begin()
                record.guard.began(list(weights.values()))
                record.tape.begin(list(weights.values()), buffers)
            gradients, value = gradient(loss, weights, parts_at(parts, step))
            losses.append(value)
            if record is not None:
                record.guard.recorded(gradients)
            own = bound(rule, weights, value)
            if clip := clip_of(rule):
                gradients, norm = clipped(clip, gradients, len(value) if value.dim() else None)
                if record is not None:
                    record.tape.norms.append(norm)
            if record is not None:
                record.tape.record(gradients)
            numbers = [rate(name, step) for name in weights]
            update.advance(own, list(weights.values()), gradients, numbers, buffers, state.count + step + 1)
            if project is not None:
                weights = settled(project, weights)
        if record is not None:
            record.guard.began(list(weights.values()))
    return weights, RuleState(state.count + steps, dict(zip(weights, buffers, strict=True))), losses
