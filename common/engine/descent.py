"""Inner steps without a graph, in place on one working copy of the weights."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.derivatives import InnerLoss, gradient, random_state
from common.engine.rates import LearnedRates
from common.engine.rules import Buffers, RuleState, UpdateRule
from common.engine.tape import Tape
from common.engine.weights import Weights


def descend(
    loss: InnerLoss,
    start: Weights,
    parts: Sequence[Any],
    *,
    steps: int,
    rule: UpdateRule,
    rates: LearnedRates,
    tape: Tape | None = None,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """Take the first `steps` inner steps from `start`, which stays as it is.

    `tape` is shown every step. Returns the adapted weights and the rule's state, both new tensors without graph, and
    the loss before each step.
    """
    return walk(loss, start, parts, steps=steps, rule=rule, rate=rates.table(), tape=tape)


def walk(
    loss: InnerLoss,
    start: Weights,
    parts: Sequence[Any],
    *,
    steps: int,
    rule: UpdateRule,
    rate: Callable[[str, int], float],
    tape: Tape | None = None,
) -> tuple[Weights, RuleState, list[Tensor]]:
    """`descend` at rates that have been read: (name, step) -> rate. Nothing here waits for the device."""
    update = updates(next(iter(start.values())).device)
    with torch.no_grad():
        weights = {name: w.detach().clone() for name, w in start.items()}
        buffers: list[Buffers] = [[] for _ in weights]
        losses = []
        for step in range(steps):
            if tape is not None:
                tape.draws.append(random_state(next(iter(weights.values())).device))
                tape.begin(list(weights.values()), buffers)
            gradients, value = gradient(loss, weights, parts)
            losses.append(value)
            if tape is not None:
                tape.record(gradients)
            numbers = [rate(name, step) for name in weights]
            update.advance(rule, list(weights.values()), gradients, numbers, buffers, step + 1)
    return weights, RuleState(steps, dict(zip(weights, buffers, strict=True))), losses
