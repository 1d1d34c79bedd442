"""The inner loop: a few differentiable optimiser steps from given weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.engine.derivatives import InnerLoss, Parts, brings_derivatives, gradient, parts_at
from common.engine.given import check_start, check_steps
from common.engine.rates import Rates, rates_of
from common.engine.rules import RuleState, UpdateRule
from common.engine.second import differentiable_twice
from common.engine.settings import Snapshots, Unroll
from common.engine.swap import written
from common.engine.together import bound, clipped_step
from common.engine.twice.policy import Need, needing
from common.engine.unroll.descent import FRESH, Descent, descend
from common.engine.unroll.projection import Projection, projected
from common.engine.unroll.rebuilt import rebuilt
from common.engine.unroll.step import step
from common.engine.value import gradients_of, in_words, refuse_constant, value_of
from common.engine.weights import Weights


@dataclass(frozen=True)
class Adapted:
    """What the inner loop leaves behind."""

    weights: Weights
    losses: list[Tensor]
    """Inner loss before each step, without graph; shape [] or [tasks]."""
    state: RuleState
    """The rule's, for a call that goes on from here; it holds as many tensors as the rule has buffers."""


def adapt(
    loss: InnerLoss,
    start: Weights,
    parts: Parts = (None,),
    *,
    steps: int,
    rule: UpdateRule,
    rates: Rates | float | Mapping[str, float],
    state: RuleState | None = None,
    project: Projection | None = None,
    unroll: Unroll = Unroll.stored,
    keep: int = 0,
    also: Sequence[Tensor] = (),
    snapshots: Snapshots = Snapshots.device,
    descent: Descent = descend,
) -> Adapted:
    """Take `steps` steps of `rule` on `loss` from `start`; `start` and `state` are never written to.

    For a stack the per-task losses are summed before the inner gradient is taken, which gives every task its own
    gradient because a task's loss depends on its slice of the weights alone. A weight that the loss does not reach has
    gradient 0, so the rule's weight decay still moves it. A start weight that asks for no gradient adapts all the same.

    Calls can be chained: weights and state of one are start and state of the next, and the outer gradient passes
    through both, as through one call. Steps count from 0 in every call, for `rates` and `parts`.

    Args:
        loss: the inner objective: loss(fast weights, part), summed over `parts`.
        start: weights before the first step; the outer gradient flows back to them.
        parts: micro-batches of the inner data; all but `stored` steps hold the graph of one of them at a time. Or a
            function of the step's index, from 0, that gives them: it is called again when a step is rebuilt.
        steps: number of inner steps N >= 1; steps beyond those of `rates` reuse its last.
        rule: one of `common.engine.rules`, or `common.engine.together.Together` around one: gradients clipped by their
            global norm, some weights without decay.
        rates: learning rate per tensor (or layer) and step; or a plain number, or one for each name.
        state: where an earlier call left the rule; None starts fresh. The outer gradient flows back to its buffers.
        project: what follows every step, see `Projection`; its own derivative is taken in every step that has one.
        unroll: see `Unroll`. It alone decides about graphs, a surrounding `torch.no_grad()` does not.
        keep: with `Unroll.truncate`, how many of the last steps keep their graph (0 .. steps): the rates of the others
            get no gradient, and the rule's state enters the kept ones as a constant. With `Unroll.tgu` the same number
            of exact steps, and first-order ones before them: keep=0 is `first_order`, keep=steps is `stored`. With
            `Unroll.recompute`, how many of the last steps store their graph instead of rebuilding it: the same numbers,
            sooner and with more memory.
        also: with `Unroll.recompute`, what else of loss and projection learns (a part of the network that is not fast,
            say, or the centre of a ball); the other unrolls find it by themselves.
        snapshots: with `Unroll.recompute`, where the steps are remembered.
        descent: with `Unroll.none` and `Unroll.truncate`, what takes the steps without graph.

    Raises:
        UserError: `steps`, `keep` or a plain rate out of range; weights that cannot adapt (`common.engine.given`); a
            loss that is no real number, has no graph or reaches no fast weight; no micro-batch.
        ValueError: a start weight has no rate, `state` is not one of `rule` for these weights, or `project` changes
            names or shapes. In the backward pass of `recompute`: loss or projection depend on a learning tensor that
            `also` lacks.
    """
    check_start(start)
    check_steps(steps, keep)
    rates, state = rates_of(rates, start), FRESH if state is None else state
    _refuse_other_state(state, start, rule)
    losses: list[Tensor] = []
    stored = {Unroll.truncate: keep, Unroll.recompute: keep, Unroll.none: 0}.get(unroll, steps)
    if stored < steps:
        count = steps - stored
        if unroll is Unroll.recompute:
            weights, state, losses = rebuilt(
                loss, start, parts, steps=count, rule=rule, rates=rates, state=state, project=project,
                also=also, snapshots=snapshots,
            )  # fmt: skip
        else:
            weights, state, losses = descent(
                loss, start, parts, steps=count, rule=rule, rates=rates, state=state, project=project
            )
        if unroll is Unroll.truncate:
            weights = _identity_jacobian(weights, start)
    else:
        weights = _apart(start)
    for index in range(steps - stored, steps):
        constant = unroll is Unroll.first_order or (unroll is Unroll.tgu and index < steps - keep)
        watched = loss if index or brings_derivatives(loss) else _never_writing(loss, start)
        gradients, value = _gradients(watched, weights, parts_at(parts, index), create_graph=not constant)
        losses.append(value)
        with torch.enable_grad():
            own = bound(rule, weights, value)
            weights, state = step(own, weights, clipped_step(own, gradients, value), state, rates(index))
            if project is not None:
                weights = _apart(projected(project, weights))
    return Adapted(weights, losses, state)


def _refuse_other_state(state: RuleState, start: Weights, rule: UpdateRule) -> None:
    """Buffers of another rule or other weights would be taken for the moments of these."""
    each = rule.buffers if state.count else 0
    for name, w in start.items():
        if [b.shape for b in state.buffers.get(name, [])] != [w.shape] * each:
            raise ValueError(
                f"state after {state.count} steps does not fit {name} of shape {list(w.shape)}, of which "
                f"{type(rule).__name__} has {each} buffers then: give the state of the same rule and weights, or None"
            )


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
    with torch.enable_grad(), needing(Need.second), differentiable_twice(), in_words():
        value = value_of(loss, weights, parts[0])
        for part in parts[1:]:
            value = value + value_of(loss, weights, part)
        graphed = dict(zip(weights, gradients_of(value, weights, create_graph=True), strict=True))
        refuse_constant(loss, value, graphed)
    return graphed, value.detach()


def _never_writing(loss: InnerLoss, start: Weights) -> InnerLoss:
    """`loss` at tensors that share their memory with `start`: if it writes to them, that is undone and an error."""

    def watched(weights: Weights, part: Any) -> Tensor:
        before = [w.detach().clone() for w in start.values()]
        try:
            value = loss(weights, part)
        except BaseException:
            _put_back(start, before)
            raise
        if changed := _put_back(start, before):
            raise written(changed[0])
        return value

    return watched


def _put_back(start: Weights, before: Sequence[Tensor]) -> list[str]:
    """The names of those that are not as `before`, and are again afterwards."""
    changed = []
    for (name, w), was in zip(start.items(), before, strict=True):
        if not w.equal(was) and not torch.allclose(w, was, rtol=0, atol=0, equal_nan=True):
            w.data.copy_(was)  # `data`: to a graph it has not been written to
            changed.append(name)
    return changed


def _apart(weights: Weights) -> Weights:
    """The same as nodes of their own: others of them, or the loss, may depend on these tensors by another way, which is
    no part of the inner gradient."""
    with torch.enable_grad():
        return {name: w.view_as(w) for name, w in weights.items()}


def _identity_jacobian(weights: Weights, start: Weights) -> Weights:
    """The values of `weights` with the history of `start`: d(weights)/d(start) = 1."""
    with torch.enable_grad():
        return {name: value.detach() + (start[name] - start[name].detach()) for name, value in weights.items()}
