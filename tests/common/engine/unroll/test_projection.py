"""Steps that are projected: an attack on inputs against one written by hand, and derivatives through the projection."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, Momentum, SignSGD, UpdateRule
from common.engine.settings import Snapshots, Unroll
from common.engine.unroll.projection import projected
from common.engine.weights import Weights

STEPS = 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
REBUILT: list[dict[str, Any]] = [
    {"unroll": Unroll.recompute, "keep": keep, "snapshots": snapshots}
    for keep, snapshots in itertools.product((0, 2), Snapshots)
]
GRAPHS: list[dict[str, Any]] = [
    {"unroll": Unroll.stored},
    *REBUILT,
    {"unroll": Unroll.first_order},
    *({"unroll": unroll, "keep": keep} for unroll in (Unroll.tgu, Unroll.truncate) for keep in (0, 1, 2, STEPS)),
]


# ---- an attack


def test_projected_sign_steps_on_inputs_are_the_attack_written_by_hand_to_the_bit() -> None:
    radius, size = 0.1, 0.03
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    begin = (images + radius * (2 * torch.rand_like(images) - 1)).clamp(0, 1)

    by_hand = begin.clone()
    for _ in range(7):
        x = by_hand.requires_grad_()
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), labels, reduction="sum"), [x])
        moved = x.detach() + size * g.sign()
        by_hand = torch.max(torch.min(moved, images + radius), images - radius).clamp(0, 1)

    def lowered(at: Weights, _: object) -> Tensor:
        return -nn.functional.cross_entropy(network(at["x"]), labels, reduction="sum")

    def ball(at: Weights) -> Weights:
        return {"x": at["x"].clamp(images - radius, images + radius).clamp(0, 1)}

    found = adapt(
        lowered, {"x": begin}, steps=7, rule=SignSGD(), rates=size, project=ball, unroll=Unroll.none
    )  # fmt: skip
    assert torch.equal(found.weights["x"], by_hand)
    assert (by_hand - images).abs().max() > 0.09, "the ball was reached"
    assert found.losses[-1] < found.losses[0] and all(p.grad is None for p in network.parameters())
    for how in GRAPHS:
        other = adapt(
            lowered,
            {"x": begin},
            steps=7,
            rule=SignSGD(),
            rates=size,
            project=ball,
            also=[*network.parameters()],
            **how,
        )
        assert torch.equal(other.weights["x"], by_hand)


# ---- derivatives


class Problem:
    """Two weights, one kept in a ball whose centre learns, the other in a box; what else the loss learns by."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        a, b, centre, self.slope = (
            torch.randn(6, dtype=torch.double, generator=draw).requires_grad_() for _ in range(4)
        )
        self.start: Weights = {"a": a, "b": b}
        self.centre = centre
        self.rates = LearnedRates(["a", "b"], steps=STEPS, start=0.2).double()
        self.inputs = [a, b, self.centre, self.slope, self.rates.numbers]

    def loss(self, weights: Weights, _: object) -> Tensor:
        return (self.slope * weights["a"] * weights["b"]).sin().sum() + weights["a"].pow(4).mean()

    def project(self, weights: Weights) -> Weights:
        """Onto a ball, each weight in its own way, and in another order than they came."""
        away = weights["a"] - self.centre
        return {"b": weights["b"].clamp(-0.8, 0.8), "a": self.centre + away * (1.5 / away.norm()).clamp(max=1.0)}

    def adapt(self, rule: UpdateRule, **how: Any) -> Weights:
        given = {"rates": self.rates, "project": self.project, "also": [self.centre, self.slope], **how}
        return adapt(self.loss, self.start, steps=STEPS, rule=rule, **given).weights

    def gradients(self, fast: Weights) -> tuple[Tensor, ...]:
        total = torch.stack([w.cos().sum() for w in fast.values()]).sum()
        return torch.autograd.grad(total, self.inputs, allow_unused=True, materialize_grads=True)

    def by_hand(self, unroll: Unroll, keep: int = 0, **_: Any) -> Weights:
        """Plain torch operations; SGD."""
        weights = self.start
        for index in range(STEPS):
            late = index >= STEPS - keep
            exact = unroll in (Unroll.stored, Unroll.recompute) or (unroll in (Unroll.tgu, Unroll.truncate) and late)
            if unroll is Unroll.truncate and keep < STEPS and index == STEPS - keep:
                weights = {n: w.detach() + self.start[n] - self.start[n].detach() for n, w in weights.items()}
            found = torch.autograd.grad(
                self.loss(weights, None), list(weights.values()), create_graph=exact, retain_graph=True
            )
            rates = self.rates(index)
            weights = {n: w - rates[n] * g for (n, w), g in zip(weights.items(), found, strict=True)}
            weights = projected(self.project, weights)
        if unroll is Unroll.truncate and keep == 0:
            weights = {n: w.detach() + self.start[n] - self.start[n].detach() for n, w in weights.items()}
        return weights


@pytest.mark.parametrize("how", GRAPHS, ids=str)
def test_every_unroll_differentiates_the_projection_as_plain_torch_does(how: dict[str, Any]) -> None:
    problem = Problem()
    wanted = problem.by_hand(**how)
    found = problem.adapt(SGD(), **how)
    torch.testing.assert_close(found, wanted, **CLOSE)
    gradients = problem.gradients(found)
    torch.testing.assert_close(gradients, problem.gradients(wanted), **CLOSE)
    if how["unroll"] in (Unroll.stored, Unroll.recompute):
        free = problem.adapt(SGD(), project=None)
        assert not torch.equal(free["a"], found["a"]) and not torch.equal(free["b"], found["b"]), "both walls were met"
        assert all(g.ne(0).any() for g in gradients)


@pytest.mark.parametrize("how", REBUILT, ids=str)
@pytest.mark.parametrize("rule", [Momentum(0.9, 0.1), AdamW(eps=1e-2), SignSGD()], ids=repr)
def test_rebuilt_steps_play_the_projection_again(rule: UpdateRule, how: dict[str, Any]) -> None:
    problem = Problem()
    stored, rebuilt = problem.adapt(rule), problem.adapt(rule, **how)
    assert all(torch.equal(rebuilt[name], w) for name, w in stored.items())
    torch.testing.assert_close(problem.gradients(rebuilt), problem.gradients(stored), **CLOSE)


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute, Unroll.first_order, Unroll.truncate, Unroll.none])
def test_a_projection_may_return_what_others_hold_and_it_stays_as_it_is(unroll: Unroll) -> None:
    """Such as a step that is taken back: the next one must not write to the start."""
    problem = Problem()
    before = {name: w.detach().clone() for name, w in problem.start.items()}
    fast = problem.adapt(SGD(), project=lambda w: {"a": problem.start["a"], "b": w["b"]}, unroll=unroll)
    assert torch.equal(fast["a"], before["a"]) and not torch.equal(fast["b"], before["b"])
    if unroll is not Unroll.none:
        assert problem.gradients(fast)[1].ne(0).any()
    for name, w in problem.start.items():
        assert torch.equal(w, before[name])


@pytest.mark.parametrize("how", REBUILT, ids=str)
def test_a_projection_that_takes_every_step_back_leaves_no_gradient_to_the_steps(how: dict[str, Any]) -> None:
    problem = Problem()
    fixed = {name: torch.zeros_like(w) for name, w in problem.start.items()}
    found = problem.gradients(problem.adapt(SGD(), project=lambda w: fixed, **{**how, "keep": 0}))
    assert all(g.eq(0).all() for g in found)


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute, Unroll.none])
@pytest.mark.parametrize(
    "change", [lambda w: {"a": w["a"]}, lambda w: {**w, "c": w["a"]}, lambda w: {**w, "a": w["a"][:2]}]
)
def test_a_projection_keeps_names_and_shapes(change: Any, unroll: Unroll) -> None:
    with pytest.raises(
        ValueError, match=r"a projection keeps names and shapes: .*'b': \[6\].* went in, and .* came out"
    ):
        Problem().adapt(SGD(), project=change, unroll=unroll)


def test_a_learning_tensor_of_the_projection_that_is_not_named_is_refused_in_the_backward_pass() -> None:
    problem = Problem()
    fast = problem.adapt(SGD(), also=[problem.slope], unroll=Unroll.recompute)
    with pytest.raises(ValueError, match=r"the projection depends on a learning tensor of shape \[6\] .* also="):
        problem.gradients(fast)
