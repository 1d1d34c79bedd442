"""The inner loop: a few differentiable optimiser steps from given weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.engine.derivatives import InnerLoss, gradient
from common.engine.descent import descend
from common.engine.rates import LearnedRates
from common.engine.rebuilt import rebuilt
from common.engine.rules import RuleState, UpdateRule, step
from common.engine.settings import Snapshots, Unroll
from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights
from common.errors import UserError


@dataclass(frozen=True)
class Adapted:
    """What the inner loop leaves behind."""

    weights: Weights
    losses: list[Tensor]
    """Inner loss before each step, without graph; shape [] or [tasks]."""


def adapt(
    loss: InnerLoss,
    start: Weights,
    parts: Sequence[Any] = (None,),
    *,
    steps: int,
    rule: UpdateRule,
    rates: LearnedRates,
    unroll: Unroll = Unroll.stored,
    keep: int = 0,
    also: Sequence[Tensor] = (),
    snapshots: Snapshots = Snapshots.device,
) -> Adapted:
    """Take `steps` steps of `rule` on `loss` from `start`; `start` is never written to.

    For a stack the per-task losses are summed before the inner gradient is taken, which gives every task its own
    gradient because a task's loss depends on its slice of the weights alone. A weight that the loss does not reach has
    gradient 0, so the rule's weight decay still moves it. A start weight that asks for no gradient adapts all the same.

    Args:
        loss: the inner objective: loss(fast weights, part), summed over `parts`.
        start: weights before the first step; the outer gradient flows back to them.
        parts: micro-batches of the inner data; all but `stored` steps hold the graph of one of them at a time.
        steps: number of inner steps N >= 1; steps beyond those of `rates` reuse its last.
        rule: SGD, Momentum or AdamW of `common.engine.rules`; its state starts fresh.
        rates: learning rate per tensor (or layer) and step.
        unroll: see `Unroll`. It alone decides about graphs, a surrounding `torch.no_grad()` does not.
        keep: with `Unroll.truncate`, how many of the last steps keep their graph (0 .. steps): the rates of the others
            get no gradient, and the rule's state enters the kept ones as a constant. With `Unroll.tgu` the same number
            of exact steps, and first-order ones before them: keep=0 is `first_order`, keep=steps is `stored`. With
            `Unroll.recompute`, how many
            of the last steps store their graph instead of rebuilding it: the same numbers, sooner and with more memory.
        also: with `Unroll.recompute`, what else of the loss learns (a part of the network that is not fast, say); the
            other unrolls find it by themselves.
        snapshots: with `Unroll.recompute`, where the steps are remembered.

    Raises:
        UserError: `steps` or `keep` out of range.
        ValueError: a start weight has no rate. In the backward pass of `recompute`: the loss depends on a learning
            tensor that `also` lacks.
    """
    if steps < 1:
        raise UserError(f"inner.steps={steps}: at least one inner step is needed; use a value of 1 or more")
    if not 0 <= keep <= steps:
        raise UserError(f"inner.keep={keep} with inner.steps={steps}: use a value between 0 and {steps}")
    if without := start.keys() - rates.row.keys():
        raise ValueError(f"no inner rate for {sorted(without)}: make the rates from the names of the start weights")
    if unroll is Unroll.none:
        weights, _, losses = descend(loss, start, parts, steps=steps, rule=rule, rates=rates)
        return Adapted(weights, losses)

    stored = {Unroll.truncate: keep, Unroll.recompute: keep}.get(unroll, steps)
    weights, state, losses = start, RuleState(), []
    if unroll is Unroll.truncate and stored < steps:
        weights, state, losses = descend(loss, start, parts, steps=steps - stored, rule=rule, rates=rates)
        weights = _identity_jacobian(weights, start)
    if unroll is Unroll.recompute and stored < steps:
        weights, state, losses = rebuilt(
            loss, start, parts, steps=steps - stored, rule=rule, rates=rates, also=also, snapshots=snapshots
        )
    for index in range(steps - stored, steps):
        constant = unroll is Unroll.first_order or (unroll is Unroll.tgu and index < steps - keep)
        gradients, value = _gradients(loss, weights, parts, create_graph=not constant)
        losses.append(value)
        with torch.enable_grad():
            weights, state = step(rule, weights, gradients, state, rates(index))
    return Adapted(weights, losses)


def _gradients(
    loss: InnerLoss, weights: Weights, parts: Sequence[Any], *, create_graph: bool
) -> tuple[Weights, Tensor]:
    """Gradient of the summed loss, with its own graph when `create_graph`; and the loss itself without graph.

    Without a graph the loss is taken at leaves of the same value, so that nothing of it outlives the call.
    """
    if not create_graph:
        found, value = gradient(loss, weights, parts)
        return dict(zip(weights, found, strict=True)), value
    weights = {name: w if w.requires_grad else w.detach().requires_grad_() for name, w in weights.items()}
    with torch.enable_grad(), needing(Need.second):
        value = loss(weights, parts[0])
        for part in parts[1:]:
            value = value + loss(weights, part)
        graphed = torch.autograd.grad(
            value.sum(), list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
    return dict(zip(weights, graphed, strict=True)), value.detach()


def _identity_jacobian(weights: Weights, start: Weights) -> Weights:
    """The values of `weights` with the history of `start`: d(weights)/d(start) = 1."""
    with torch.enable_grad():
        return {name: value.detach() + (start[name] - start[name].detach()) for name, value in weights.items()}
