"""The inner loop: a few differentiable optimiser steps from given weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.bilevel import Unroll
from common.errors import UserError
from common.rates import LearnedRates
from common.rules import UpdateRule
from common.weights import Weights, leaves

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
    gradient because a task's loss depends on its slice of the weights alone. A weight that the loss does not reach has
    gradient 0, so the rule's weight decay still moves it. A start weight that asks for no gradient adapts all the same.

    Args:
        loss: the inner objective, a function of the fast weights.
        start: weights before the first step; the outer gradient flows back to them.
        steps: number of inner steps N >= 1; steps beyond those of `rates` reuse its last.
        rule: SGD, Momentum or AdamW of `common.rules`; its state starts fresh.
        rates: learning rate per tensor (or layer) and step.
        unroll: see `Unroll`. It alone decides about graphs, a surrounding `torch.no_grad()` does not.
        keep: with `Unroll.truncate`, how many of the last steps keep their graph (0 .. steps). The rates of the others
            get no gradient, and the rule's state enters the kept ones as a constant.

    Raises:
        UserError: `steps` or `keep` out of range.
        ValueError: a start weight has no rate.
    """
    if steps < 1:
        raise UserError(f"inner.steps={steps}: at least one inner step is needed; use a value of 1 or more")
    if unroll is Unroll.truncate and not 0 <= keep <= steps:
        raise UserError(f"inner.keep={keep} with inner.steps={steps}: use a value between 0 and {steps}")
    if without := start.keys() - rates.row.keys():
        raise ValueError(f"no inner rate for {sorted(without)}: make the rates from the names of the start weights")
    exact_from = {Unroll.stored: 0, Unroll.truncate: steps - keep}.get(unroll, steps)
    weights, state, losses = start, rule.start(start), []
    for step in range(steps):
        exact = step >= exact_from
        if step == exact_from > 0:
            weights = _identity_jacobian(weights, start)
        gradients, value = _gradients(loss, weights, create_graph=exact)
        losses.append(value)
        with torch.set_grad_enabled(exact or unroll is Unroll.first_order):
            weights, state = rule.step(weights, gradients, state, rates(step))
    if unroll is Unroll.truncate and keep == 0:
        weights = _identity_jacobian(weights, start)
    return Adapted(weights, losses)


def _gradients(loss: InnerLoss, weights: Weights, *, create_graph: bool) -> tuple[Weights, Tensor]:
    """Gradient of the summed loss, with its own graph when `create_graph`; and the loss itself without graph.

    Without a graph the loss is taken at leaves of the same value, so that nothing of it outlives the call.
    """
    if create_graph:
        weights = {name: w if w.requires_grad else w.detach().requires_grad_() for name, w in weights.items()}
    else:
        weights = leaves(weights)
    with torch.enable_grad():
        value = loss(weights)
        found = torch.autograd.grad(
            value.sum(), list(weights.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    return dict(zip(weights, found, strict=True)), value.detach()


def _identity_jacobian(weights: Weights, start: Weights) -> Weights:
    """The values of `weights` with the history of `start`: d(weights)/d(start) = 1."""
    return {name: value.detach() + (start[name] - start[name].detach()) for name, value in weights.items()}
