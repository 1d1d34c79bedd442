"""The inner loop: a few differentiable optimiser steps from given weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.bilevel import Unroll
from common.errors import UserError
from common.rates import LearnedRates
from common.rules import RuleState, UpdateRule
from common.weights import Weights

InnerLoss = Callable[[Weights], Tensor]
"""Fast weights -> loss; shape [] for one task, [tasks] for a stack (task t depends on slice t of the weights only)."""


@dataclass(frozen=True)
class Adapted:
    """What the inner loop leaves behind."""

    weights: Weights
    losses: list[Tensor]
    """Inner loss before each step, without graph; shape [] or [tasks]."""


def adapt(
    loss: InnerLoss,
    start: Weights,
    *,
    steps: int,
    rule: UpdateRule,
    rates: LearnedRates,
    unroll: Unroll = Unroll.stored,
    keep: int = 0,
) -> Adapted:
    """Take `steps` steps of `rule` on `loss` from `start`; `start` is never written to.

    For a stack the per-task losses are summed before the inner gradient is taken, which gives every task its own
    gradient because a task's loss depends on its slice of the weights alone.

    Args:
        loss: the inner objective, a function of the fast weights.
        start: weights before the first step; the outer gradient flows back to them.
        steps: number of inner steps N >= 1.
        rule: SGD, Momentum or AdamW of `common.rules`; its state starts fresh.
        rates: learning rate per tensor (or layer) and step.
        unroll: see `Unroll`.
        keep: with `Unroll.truncate`, how many of the last steps keep their graph (0 .. steps).

    Raises:
        UserError: `steps` or `keep` out of range.
    """
    if steps < 1:
        raise UserError(f"inner.steps={steps}: at least one inner step is needed; use a value of 1 or more")
    if unroll is Unroll.truncate and not 0 <= keep <= steps:
        raise UserError(f"inner.keep={keep} with inner.steps={steps}: use a value between 0 and {steps}")
    exact_from = {Unroll.stored: 0, Unroll.truncate: steps - keep}.get(unroll, steps)
    weights, state, losses = start, rule.start(start), []
    for step in range(steps):
        exact = step >= exact_from
        if exact and step == exact_from and step > 0:
            weights = _identity_jacobian(weights, start)
        gradients, value = _gradients(loss, weights, create_graph=exact)
        losses.append(value)
        with torch.set_grad_enabled(exact or unroll is Unroll.first_order):
            weights, state = rule.step(weights, gradients, state, rates(step))
        if unroll is Unroll.truncate and not exact:
            state = _without_graph(state)
    if unroll is Unroll.truncate and keep == 0:
        weights = _identity_jacobian(weights, start)
    return Adapted(weights, losses)


def _gradients(loss: InnerLoss, weights: Weights, *, create_graph: bool) -> tuple[Weights, Tensor]:
    """Gradient of the summed loss, with its own graph when `create_graph`; and the loss itself without graph.

    Without a graph the loss is taken at leaves of the same value, so that nothing of it outlives the call.
    """
    if not create_graph:
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    with torch.enable_grad():
        value = loss(weights)
        found = torch.autograd.grad(
            value.sum(), list(weights.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return dict(zip(weights, found, strict=True)), value.detach()


def _identity_jacobian(weights: Weights, start: Weights) -> Weights:
    """The values of `weights` with the history of `start`: d(weights)/d(start) = 1."""
    return {name: value.detach() + (start[name] - start[name].detach()) for name, value in weights.items()}


def _without_graph(state: RuleState) -> RuleState:
    buffers = {kind: {name: t.detach() for name, t in tensors.items()} for kind, tensors in state.buffers.items()}
    return RuleState(state.count, buffers)
