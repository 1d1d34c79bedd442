"""Update rules against torch's own optimisers, and their derivatives where a gradient is zero."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.bilevel import InnerConfig, RuleName
from common.rules import SGD, AdamW, Momentum, RuleState, UpdateRule, guarded_sqrt, make_rule
from common.weights import Weights

STEPS = 5
BETAS = [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.9, 0.0)]
OPTIM = torch.optim
CASES: list[tuple[UpdateRule, Callable[..., torch.optim.Optimizer]]] = [
    (SGD(), lambda groups: OPTIM.SGD(groups)),
    (SGD(0.1), lambda groups: OPTIM.SGD(groups, weight_decay=0.1)),
    (Momentum(0.9), lambda groups: OPTIM.SGD(groups, momentum=0.9)),
    (Momentum(0.5, 0.1), lambda groups: OPTIM.SGD(groups, momentum=0.5, weight_decay=0.1)),
    (AdamW(), lambda groups: OPTIM.AdamW(groups)),
    (AdamW(eps=0.1), lambda groups: OPTIM.AdamW(groups, eps=0.1)),
    *[
        (
            AdamW(*betas, weight_decay=decay),
            lambda groups, b=betas, d=decay: OPTIM.AdamW(groups, betas=b, weight_decay=d),
        )
        for betas in BETAS
        for decay in (0.0, 0.3)
    ],
]


def start() -> Weights:
    return {
        "matrix": torch.randn(3, 4, dtype=torch.double),
        "vector": torch.randn(4, dtype=torch.double),
        "scalar": torch.randn((), dtype=torch.double),
    }


def loss(weights: Weights) -> Tensor:
    """Row 0 of the matrix is never used: its gradient is exactly zero, as of an embedding row."""
    return ((weights["matrix"][1:] @ weights["vector"]).sin() * weights["scalar"]).square().sum()


def rates(step: int) -> dict[str, Tensor]:
    """Another rate for every tensor and step."""
    return {
        name: torch.tensor((index + 1) * 0.02 / (step + 1), dtype=torch.double) for index, name in enumerate(start())
    }


@pytest.mark.parametrize(("rule", "optimizer"), CASES, ids=lambda value: repr(value) if hasattr(value, "step") else "")
def test_a_rule_takes_the_steps_of_torchs_optimiser(rule: UpdateRule, optimizer: Callable) -> None:
    weights = start()
    theirs = {name: value.clone().requires_grad_() for name, value in weights.items()}
    torchs = optimizer([{"params": [value], "lr": 0.0} for value in theirs.values()])
    state = rule.start(weights)
    for step in range(STEPS):
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        found = torch.autograd.grad(loss(leaves), list(leaves.values()))
        weights, state = rule.step(leaves, dict(zip(leaves, found, strict=True)), state, rates(step))

        torchs.zero_grad()
        loss(theirs).backward()
        for group, rate in zip(torchs.param_groups, rates(step).values(), strict=True):
            group["lr"] = rate.item()
        torchs.step()
        for name, value in theirs.items():
            torch.testing.assert_close(weights[name].detach(), value.detach(), rtol=1e-13, atol=1e-14)
    assert state.count == STEPS


@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW()])
def test_nothing_is_written_in_place(rule: UpdateRule) -> None:
    weights = start()
    gradients = {name: torch.randn_like(value) for name, value in weights.items()}
    state = rule.start(weights)
    for step in range(3):
        given = [*weights.values(), *gradients.values(), *rates(step).values()]
        given += [tensor for buffer in state.buffers.values() for tensor in buffer.values()]
        before = [(tensor.clone(), tensor._version) for tensor in given]
        weights, state = rule.step(weights, gradients, state, rates(step))
        for tensor, (value, version) in zip(given, before, strict=True):
            assert torch.equal(tensor, value) and tensor._version == version


@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW(), AdamW(eps=1e-3)])
def test_a_step_has_the_derivative_of_finite_differences_in_weights_gradients_state_and_rates(rule: UpdateRule) -> None:
    def two_steps(w: Tensor, g1: Tensor, g2: Tensor, r1: Tensor, r2: Tensor) -> Tensor:
        first, state = rule.step({"w": w}, {"w": g1}, rule.start({"w": w}), {"w": r1})
        second, _ = rule.step(first, {"w": g2}, state, {"w": r2})
        return second["w"]

    draw = lambda *shape: (torch.rand(*shape, dtype=torch.double) + 0.5).requires_grad_()  # noqa: E731
    assert torch.autograd.gradcheck(two_steps, (draw(3), draw(3), draw(3), draw(()), draw(())))


def test_the_guarded_root_is_the_root_with_flat_derivatives_at_zero() -> None:
    x = torch.tensor([0.0, 1e-300, 1e-8, 0.25, 9.0], dtype=torch.double, requires_grad=True)
    root = guarded_sqrt(x)
    assert torch.equal(root, x.sqrt())
    (first,) = torch.autograd.grad(root.sum(), [x], create_graph=True)
    torch.testing.assert_close(first[1:], 0.5 / x[1:].sqrt())
    (second,) = torch.autograd.grad(first[[0, 2, 3, 4]].sum(), [x])
    torch.testing.assert_close(second[2:], -0.25 / x[2:] ** 1.5)
    assert first[0] == 0 and second[0] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_has_finite_first_and_second_derivatives_where_gradients_are_zero(dtype: torch.dtype) -> None:
    w = torch.tensor([1.0, -2.0, 3.0], dtype=dtype, requires_grad=True)
    used = torch.tensor([0.0, 0.0, 1.0], dtype=dtype)  # the first two entries never get a gradient
    rate = {"w": torch.tensor(0.1, dtype=dtype, requires_grad=True)}
    rule = AdamW()
    weights, state = {"w": w}, rule.start({"w": w})
    for _ in range(3):
        weights, state = rule.step(weights, {"w": used * weights["w"].pow(3)}, state, rate)
    first = torch.autograd.grad(weights["w"].sin().sum(), [w, rate["w"]], create_graph=True)
    second = torch.autograd.grad(sum(value.sum() for value in first), [w, rate["w"]])
    assert all(torch.isfinite(value).all() for value in (*first, *second))
    kept = (1 - 0.1 * rule.weight_decay) ** 3  # without a gradient there is weight decay alone
    torch.testing.assert_close(first[0][:2], w[:2].mul(kept).cos() * kept)


def test_adamws_first_derivative_stays_finite_in_float32_however_small_the_gradient() -> None:
    g = torch.tensor([0.0, 1e-38, 1e-25, 1e-22, 1e-20, 1e-12, 1e-8, 1.0]).requires_grad_()
    w = torch.zeros(8)
    moved, _ = AdamW().step({"w": w}, {"w": g}, AdamW().start({"w": w}), {"w": torch.tensor(0.1)})
    (found,) = torch.autograd.grad(moved["w"].sum(), [g])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[-2], torch.tensor(-0.1 * 1e-8 / (1e-8 + 1e-8) ** 2), rtol=1e-3, atol=0.0)


def test_the_state_of_a_fresh_start_is_empty() -> None:
    assert all(rule.start(start()) == RuleState(0, {}) for rule in (SGD(), Momentum(), AdamW()))


def test_the_settings_name_the_rule_and_its_numbers() -> None:
    config = InnerConfig(weight_decay=0.2, momentum=0.7, beta1=0.8, beta2=0.99, eps=1e-6)
    config.rule = RuleName.sgd
    assert make_rule(config) == SGD(0.2)
    config.rule = RuleName.momentum
    assert make_rule(config) == Momentum(0.7, 0.2)
    config.rule = RuleName.adamw
    assert make_rule(config) == AdamW(0.8, 0.99, 1e-6, 0.2)
