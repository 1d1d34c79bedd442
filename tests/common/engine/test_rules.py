"""Update rules against torch's own optimisers, and their derivatives where a gradient is zero."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.engine.rules import SGD, AdamW, Buffers, Momentum, RuleState, UpdateRule, make_rule
from common.engine.settings import InnerConfig, RuleName
from common.engine.unroll.step import step
from common.engine.weights import Weights

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


@pytest.mark.parametrize(
    ("rule", "optimizer"), CASES, ids=lambda value: repr(value) if hasattr(value, "advance") else ""
)
def test_a_rule_takes_the_steps_of_torchs_optimiser(rule: UpdateRule, optimizer: Callable) -> None:
    weights = start()
    theirs = {name: value.clone().requires_grad_() for name, value in weights.items()}
    torchs = optimizer([{"params": [value], "lr": 0.0} for value in theirs.values()])
    state = RuleState()
    for index in range(STEPS):
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        found = torch.autograd.grad(loss(leaves), list(leaves.values()))
        weights, state = step(rule, leaves, dict(zip(leaves, found, strict=True)), state, rates(index))

        torchs.zero_grad()
        loss(theirs).backward()
        for group, rate in zip(torchs.param_groups, rates(index).values(), strict=True):
            group["lr"] = rate.item()
        torchs.step()
        for name, value in theirs.items():
            torch.testing.assert_close(weights[name].detach(), value.detach(), rtol=1e-13, atol=1e-14)
    assert state.count == STEPS


@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW()])
def test_a_differentiable_step_writes_to_nothing(rule: UpdateRule) -> None:
    weights = start()
    gradients = {name: torch.randn_like(value) for name, value in weights.items()}
    state = RuleState()
    for index in range(3):
        given = [*weights.values(), *gradients.values(), *rates(index).values()]
        given += [tensor for own in state.buffers.values() for tensor in own]
        before = [(tensor.clone(), tensor._version) for tensor in given]
        weights, state = step(rule, weights, gradients, state, rates(index))
        for tensor, (value, version) in zip(given, before, strict=True):
            assert torch.equal(tensor, value) and tensor._version == version


@pytest.mark.parametrize("rule", [SGD(0.1), SGD(), Momentum(0.9, 0.1), Momentum(), AdamW()])
def test_to_advance_is_the_same_step_in_place_and_writes_only_to_the_weight_and_the_buffers(rule: UpdateRule) -> None:
    weights, state = start(), RuleState()
    ours: dict[str, tuple[Tensor, Buffers]] = {name: (value.clone(), []) for name, value in weights.items()}
    places = {name: w.data_ptr() for name, (w, _) in ours.items()}
    for index in range(3):
        gradients = {name: torch.randn_like(value) for name, value in weights.items()}
        weights, state = step(rule, weights, gradients, state, rates(index))
        for name, (w, buffers) in ours.items():
            kept, owned = gradients[name].clone(), [buffer.data_ptr() for buffer in buffers]
            rule.advance(w, gradients[name], rates(index)[name].item(), buffers, index + 1)
            assert torch.equal(gradients[name], kept) and gradients[name]._version == 0
            assert torch.equal(w, weights[name]) and w.data_ptr() == places[name]
            assert len(buffers) == rule.buffers and all(map(torch.equal, buffers, state.buffers[name]))
            assert index == 0 or [buffer.data_ptr() for buffer in buffers] == owned
            assert gradients[name].data_ptr() not in [buffer.data_ptr() for buffer in buffers]


@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW(), AdamW(eps=1e-3)])
def test_a_step_has_the_derivative_of_finite_differences_in_weights_gradients_state_and_rates(rule: UpdateRule) -> None:
    def two_steps(w: Tensor, g1: Tensor, g2: Tensor, r1: Tensor, r2: Tensor) -> tuple[Tensor, ...]:
        first, state = step(rule, {"w": w}, {"w": g1}, RuleState(), {"w": r1})
        second, state = step(rule, first, {"w": g2}, state, {"w": r2})
        return second["w"], *state.buffers["w"]

    draw = lambda *shape: (torch.rand(*shape, dtype=torch.double) + 0.5).requires_grad_()  # noqa: E731
    assert torch.autograd.gradcheck(two_steps, (draw(3), draw(3), draw(3), draw(()), draw(())))


@pytest.mark.parametrize(
    ("rule", "taken"),
    [(SGD(0.1), "weight"), *[(rule, taken) for rule in (Momentum(0.9, 0.1), AdamW()) for taken in ("weight", "state")]],
)
def test_the_derivative_of_a_step_leaves_alone_what_it_does_not_own(rule: UpdateRule, taken: str) -> None:
    """Autograd hands the same cotangent to whoever added up the same tensors; the pull works in place on copies."""
    w, g, rate = (torch.rand(3, dtype=torch.double).requires_grad_() for _ in range(3))
    moved, state = step(rule, {"w": w}, {"w": g}, RuleState(), {"w": rate[0]})
    moved, state = step(rule, moved, {"w": g}, state, {"w": rate[1]})
    of = [moved["w"]] if taken == "weight" else state.buffers["w"]
    bars = [torch.rand(3, dtype=torch.double) for _ in of]
    watched = [w, g, rate, *bars, moved["w"], *state.buffers["w"]]
    before = [(tensor.detach().clone(), tensor._version) for tensor in watched]
    first = torch.autograd.grad(of, [w, g, rate], bars, retain_graph=True, materialize_grads=True, allow_unused=True)
    again = torch.autograd.grad(of, [w, g, rate], bars, materialize_grads=True, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for tensor, (value, version) in zip(watched, before, strict=True):
        assert torch.equal(tensor, value) and tensor._version == version


@pytest.mark.parametrize("rule", [SGD(), Momentum(0.9, 0.1), AdamW()])
def test_a_derivative_of_the_derivative_raises(rule: UpdateRule) -> None:
    """Of a constant cotangent too, where torch's own guard hands out a constant in silence."""
    w, g, rate = (torch.rand((), dtype=torch.double).requires_grad_() for _ in range(3))
    moved, _ = step(rule, {"w": w}, {"w": g}, RuleState(), {"w": rate})
    for of in (moved["w"], moved["w"].square()):
        with pytest.raises(RuntimeError, match="no further derivative here: .* an inner rule"):
            torch.autograd.grad(of, [w], create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_has_finite_derivatives_where_gradients_are_zero(dtype: torch.dtype) -> None:
    w = torch.tensor([1.0, -2.0, 3.0], dtype=dtype, requires_grad=True)
    used = torch.tensor([0.0, 0.0, 1.0], dtype=dtype)  # the first two entries never get a gradient
    rate = {"w": torch.tensor(0.1, dtype=dtype, requires_grad=True)}
    rule = AdamW()
    weights, state = {"w": w}, RuleState()
    for _ in range(3):
        weights, state = step(rule, weights, {"w": used * weights["w"].pow(3)}, state, rate)
    first = torch.autograd.grad(weights["w"].sin().sum(), [w, rate["w"]])
    assert all(torch.isfinite(value).all() for value in first)
    kept = (1 - 0.1 * rule.weight_decay) ** 3  # without a gradient there is weight decay alone
    torch.testing.assert_close(first[0][:2], w[:2].mul(kept).cos() * kept)


def test_adamws_first_derivative_stays_finite_in_float32_however_small_the_gradient() -> None:
    g = torch.tensor([0.0, 1e-38, 1e-25, 1e-22, 1e-20, 1e-12, 1e-8, 1.0]).requires_grad_()
    w = torch.zeros(8)
    moved, _ = step(AdamW(), {"w": w}, {"w": g}, RuleState(), {"w": torch.tensor(0.1)})
    (found,) = torch.autograd.grad(moved["w"].sum(), [g])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[-2], torch.tensor(-0.1 * 1e-8 / (1e-8 + 1e-8) ** 2), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("rule", [SGD(), Momentum(), AdamW()])
def test_the_state_is_empty_at_the_start_and_has_the_buffers_of_the_rule_after_a_step(rule: UpdateRule) -> None:
    weights = start()
    assert RuleState() == RuleState(0, {})
    _, state = step(rule, weights, weights, RuleState(), rates(0))
    assert state.count == 1 and list(state.buffers) == list(weights)
    assert all([b.shape for b in own] == [weights[name].shape] * rule.buffers for name, own in state.buffers.items())


def test_the_settings_name_the_rule_and_its_numbers() -> None:
    config = InnerConfig(weight_decay=0.2, momentum=0.7, beta1=0.8, beta2=0.99, eps=1e-6)
    config.rule = RuleName.sgd
    assert make_rule(config) == SGD(0.2)
    config.rule = RuleName.momentum
    assert make_rule(config) == Momentum(0.7, 0.2)
    config.rule = RuleName.adamw
    assert make_rule(config) == AdamW(0.8, 0.99, 1e-6, 0.2)
