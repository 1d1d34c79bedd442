"""Clipping, weights without decay and AdamW's floors against plain autograd in float64: every unroll, stack and form.

The reference writes every formula in torch operations, with what is a constant detached, and differentiates the whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from common import fields
from common.engine import settings
from common.engine.cuda import updates, using
from common.engine.inner import adapt
from common.engine.rules import SGD, AdamW, Momentum, SignSGD, Together, UpdateRule, make_rule
from common.engine.settings import InnerConfig, Kernels, RuleName, Snapshots, Unroll
from common.engine.together import clipped, picked
from common.engine.weights import Weights, stack, unstack
from common.errors import UserError
from common.run.results import config_hash

STEPS, TASKS = 3, 2
NAMES = ("first.weight", "first.bias", "second.weight", "scale", "unused")
RATES = {name: 0.02 * (index + 1) for index, name in enumerate(NAMES)}
SPARED = ("*bias", "scale")
RULES: dict[str, UpdateRule] = {
    "sgd": SGD(0.3),
    "momentum": Momentum(0.8, 0.3),
    "adamw": AdamW(0.8, 0.95, 1e-6, 0.3),
    "floor": AdamW(0.8, 0.95, 1e-8, 0.3, floor=0.1, zero_floor=0.2),
    "floor alone": AdamW(floor=0.1),
}
CASES = {name: (rule, 0.0, ()) for name, rule in RULES.items() if "floor" in name}
CASES |= {f"{name}, clipped": (rule, 0.05, ()) for name, rule in RULES.items()}
CASES |= {f"{name}, spared": (rule, 0.0, SPARED) for name, rule in RULES.items()}
CASES |= {"all": (RULES["floor"], 0.05, SPARED), "never reached": (RULES["sgd"], 1e6, ())}
UNROLLS = {
    "stored": {"unroll": Unroll.stored},
    "recompute": {"unroll": Unroll.recompute},
    "recompute, host": {"unroll": Unroll.recompute, "snapshots": Snapshots.host},
    "recompute, keep": {"unroll": Unroll.recompute, "keep": 1},
    "tgu": {"unroll": Unroll.tgu, "keep": STEPS},
    "truncate": {"unroll": Unroll.truncate, "keep": STEPS},
}


def start() -> Weights:
    draw = torch.Generator().manual_seed(3)
    shapes = ((4, 3), (4,), (2, 4), (), (2,))
    return {
        name: torch.randn(shape, generator=draw, dtype=torch.double).requires_grad_()
        for name, shape in zip(NAMES, shapes, strict=True)
    }


def data(tasks: int) -> Tensor:
    return torch.randn(tasks, 5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.double)


def loss(weights: Weights, x: Tensor) -> Tensor:
    """One task. A row of the first matrix sees zeros alone and `unused` is not reached: gradients of exactly 0."""
    alive = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.double)
    hidden = (x @ weights["first.weight"].t() + weights["first.bias"]).tanh() * alive
    return (hidden @ weights["second.weight"].t() * weights["scale"] - 1).square().mean()


def outer(weights: Weights) -> Tensor:
    return sum((w.sin() * (1 + torch.arange(w.numel()).view(w.shape))).sum() for w in weights.values())


def reference(
    rule: UpdateRule, clip: float, spared: tuple[str, ...], slow: Weights, rates: Weights, x: Tensor
) -> Tensor:
    """The outer loss of one task."""
    weights, mean, square = dict(slow), dict.fromkeys(slow, 0.0), dict.fromkeys(slow, 0.0)
    for count in range(1, STEPS + 1):
        found = torch.autograd.grad(
            loss(weights, x), list(weights.values()), create_graph=True, materialize_grads=True, allow_unused=True
        )
        if clip:
            norm = torch.cat([g.flatten() for g in found]).norm()
            found = [g * torch.clamp(clip / (norm + 1e-6), max=1.0) for g in found]
        for (name, w), g in zip(list(weights.items()), found, strict=True):
            decay = 0.0 if spared and (name.endswith("bias") or name == "scale") else rule.weight_decay
            if isinstance(rule, AdamW):
                mean[name] = rule.beta1 * mean[name] + (1 - rule.beta1) * g
                square[name] = rule.beta2 * square[name] + (1 - rule.beta2) * g * g
                second = square[name] / (1 - rule.beta2**count)
                there = second.detach() != 0
                root = torch.where(there, torch.where(there, second, 1.0).sqrt(), 0.0)
                rms = root.detach().square().mean().sqrt()
                least = rule.floor * rms if rms else rule.zero_floor
                move = mean[name] / (1 - rule.beta1**count) / (root + rule.eps + least)
                weights[name] = w * (1 - rates[name] * decay) - rates[name] * move
            else:
                mean[name] = getattr(rule, "momentum", 0.0) * mean[name] + g + decay * w
                weights[name] = w - rates[name] * mean[name]
    return outer(weights)


class TensorRates(nn.Module):
    """A rate a weight as leaves, so that their gradients can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = {name: torch.tensor(rate, dtype=torch.double).requires_grad_() for name, rate in RATES.items()}
        self.row = {name: index for index, name in enumerate(self.numbers)}
        self.steps = 1

    def rates(self) -> Tensor:
        return torch.stack(list(self.numbers.values()))[:, None]

    def table(self):
        return lambda name, step: self.numbers[name].item()

    def forward(self, step: int) -> Weights:
        return dict(self.numbers)


def together(case: str) -> UpdateRule:
    rule, clip, spared = CASES[case]
    return Together(rule, clip, spared) if clip or spared else rule


def wanted(case: str, tasks: int) -> list[Tensor]:
    slow, rates, x = start(), TensorRates(), data(tasks)
    total = sum(reference(*CASES[case], slow, rates.numbers, own) for own in x)
    return list(torch.autograd.grad(total, [*slow.values(), *rates.numbers.values()]))


def found(case: str, *, stacked: bool, **how: object) -> list[Tensor]:
    slow, rates, x = start(), TensorRates(), data(TASKS)
    rule = together(case)
    if stacked:
        over = torch.func.vmap(loss)
        fast = adapt(over, stack(slow, TASKS), [x], steps=STEPS, rule=rule, rates=rates, **how).weights
        total = sum(outer(unstack(fast, task)) for task in range(TASKS))
    else:
        each = [adapt(loss, slow, [own], steps=STEPS, rule=rule, rates=rates, **how).weights for own in x]
        total = sum(outer(fast) for fast in each)
    return list(torch.autograd.grad(total, [*slow.values(), *rates.numbers.values()]))


@pytest.fixture(params=[Kernels.reference, Kernels.foreach])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(request.param):
        yield


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("how", UNROLLS)
@pytest.mark.parametrize("case", CASES)
def test_the_outer_gradient_is_that_of_the_formulas(case: str, how: str, stacked: bool) -> None:
    torch.testing.assert_close(found(case, stacked=stacked, **UNROLLS[how]), wanted(case, TASKS), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_steps_without_a_graph_end_at_the_same_weights(case: str) -> None:
    slow, x = start(), data(TASKS)
    each = {"steps": STEPS, "rule": together(case), "rates": RATES}
    graphed = adapt(loss, slow, [x[0]], **each).weights
    plain = adapt(loss, slow, [x[0]], unroll=Unroll.none, **each).weights
    first = adapt(loss, slow, [x[0]], unroll=Unroll.first_order, **each).weights
    assert all(torch.equal(graphed[name], plain[name]) and torch.equal(graphed[name], first[name]) for name in slow)


def test_a_gradient_is_clipped_as_torch_does() -> None:
    gradients = [torch.randn(3, 2, dtype=torch.double), torch.randn(4, dtype=torch.double), torch.randn(())]
    for most in (0.1, 100.0):
        theirs = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for parameter, g in zip(theirs, gradients, strict=True):
            parameter.grad = g.clone()
        norm = nn.utils.clip_grad_norm_(theirs, most)
        ours, own = clipped(most, gradients, None)
        torch.testing.assert_close([*ours, own.float()], [*(p.grad for p in theirs), norm.float()])


def test_a_gradient_of_zero_is_clipped_and_has_the_derivative_of_a_product() -> None:
    """Below 1e-6 the scale itself is below 1 at a norm of 0, where the direction of the norm's derivative is 0 / 0."""
    w = torch.zeros(2, dtype=torch.double, requires_grad=True)
    rule = Together(SGD(), 1e-7)
    fast = adapt(lambda weights, _: weights["w"].square().sum(), {"w": w}, steps=1, rule=rule, rates=0.5).weights["w"]
    (bar,) = torch.autograd.grad(fast.sum(), w)
    torch.testing.assert_close(bar, torch.full_like(w, 1 - 0.5 * 2 * 0.1))


def test_a_tensor_whose_gradient_is_exactly_zero_sends_no_cotangent_of_one_over_eps() -> None:
    """LoRA at its start: A's gradient is 0 while B is 0, but its derivative by B is not."""
    a, b = torch.randn(3, dtype=torch.double), torch.zeros(3, dtype=torch.double).requires_grad_()

    def slope(rule: UpdateRule) -> float:
        memorise = lambda weights, _: (weights["a"] @ b - 1).square()  # noqa: E731
        fast = adapt(memorise, {"a": a.clone().requires_grad_()}, steps=1, rule=rule, rates=1.0).weights["a"]
        (bar,) = torch.autograd.grad(fast.sum(), b)
        return bar.abs().max().item()

    assert slope(AdamW()) > 1e7 and slope(AdamW(floor=0.1)) > 1e7, "no share of nothing helps"
    assert slope(AdamW(zero_floor=0.5)) < 10


def test_floors_differ_by_tensor_and_task_and_leave_the_size_of_gradients_out() -> None:
    root = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    rule = AdamW(floor=0.1, zero_floor=7.0)
    torch.testing.assert_close(rule.least(root), torch.tensor(0.1 * (25 / 4) ** 0.5))
    torch.testing.assert_close(replace(rule, stacked=True).least(root), torch.tensor([[0.1 * 12.5**0.5], [7.0]]))
    assert AdamW().least(root) is None
    assert rule.least(torch.empty(0)).item() == 7.0


def test_an_ignored_pattern_is_named() -> None:
    with pytest.raises(
        UserError, match=r"inner\.no_decay: the pattern 'ln_\*' matches no fast weight; names look like"
    ):
        adapt(loss, start(), [data(1)[0]], steps=1, rule=Together(SGD(), no_decay=("*bias", "ln_*")), rates=0.1)


@pytest.mark.parametrize("rule", [Together(SGD(), 1.0), AdamW(floor=0.1)])
def test_a_loss_of_one_task_in_the_shape_of_a_stack_is_refused(rule: UpdateRule) -> None:
    with pytest.raises(ValueError, match=r"an inner loss of shape \[1\] is that of a stack, and first.weight has"):
        adapt(lambda weights, x: loss(weights, x)[None], start(), [data(1)[0]], steps=1, rule=rule, rates=0.1)


def test_rules_without_decay_can_be_clipped_and_not_spared() -> None:
    at = {"w": torch.ones(2)}
    fast = adapt(lambda w, _: w["w"].sum(), at, steps=1, rule=Together(SignSGD(), 0.1), rates=0.5).weights
    assert fast["w"].tolist() == [0.5, 0.5]


def test_a_rule_for_many_tensors_says_where_it_belongs() -> None:
    rule = Together(SGD(0.1), no_decay=("b",))
    with pytest.raises(TypeError, match="for all tensors of a step"):
        rule.advance(torch.ones(1), torch.ones(1), 0.1, [], 1)
    with pytest.raises(TypeError, match="for all tensors of a step"):
        rule.pull(torch.ones(1), torch.ones(1), 0.1, [], 1, torch.ones(1), [])
    with pytest.raises(ValueError, match="use `bound` first"):
        updates(torch.device("cpu")).advance(rule, [torch.ones(1)], [torch.ones(1)], [0.1], [[]], 1)
    assert picked(SGD(), [0]) == SGD()


def test_the_settings_make_it_and_count_only_once_set() -> None:
    assert settings.HASHED_IF_SET == fields.HASHED_IF_SET
    plain, own = InnerConfig(), InnerConfig(floor=0.1, zero_floor=0.2, clip=0.5, no_decay=["*bias"])
    assert make_rule(plain) == AdamW()
    assert make_rule(own) == Together(AdamW(floor=0.1, zero_floor=0.2), 0.5, ("*bias",))
    own.rule = RuleName.sgd
    assert make_rule(own) == Together(SGD(0.01), 0.5, ("*bias",))
    before = {"steps": 4, "eps": 1e-8}
    unset = {"floor": 0.0, "zero_floor": 0.0, "clip": 0.0, "no_decay": []}
    assert config_hash({**before, **unset}, InnerConfig) == config_hash(before, InnerConfig)
    hashes = {config_hash({**before, **unset, key: value}, InnerConfig) for key, value in
              (("floor", 0.1), ("zero_floor", 0.1), ("clip", 0.1), ("no_decay", ["*bias"]))}  # fmt: skip
    assert len(hashes) == 4
    for key in ("floor", "zero_floor", "clip"):
        with pytest.raises(UserError, match=rf"inner\.{key}=-1: use a finite value of 0 or more"):
            InnerConfig(**{key: -1})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Together(SGD(), -1.0),
        lambda: Together(SGD(), float("nan")),
        lambda: Together(Together(SGD()), 1.0),
        lambda: Together(SGD(), no_decay="*bias"),  # type: ignore[arg-type]
        lambda: Together(SGD(), no_decay=["*bias"]),  # type: ignore[arg-type]
        lambda: AdamW(floor=-0.1),
    ],
)
def test_a_rule_made_of_what_cannot_be_is_told(wrong: Callable[[], UpdateRule]) -> None:
    with pytest.raises(UserError, match=r"inner\.|Together around"):
        wrong()
