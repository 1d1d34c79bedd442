"""Calls that go on from one another: weights, the rule's state and the outer gradient through both; data by step."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.engine.inner import Adapted, adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, Momentum, RuleState, UpdateRule
from common.engine.settings import Snapshots, Unroll
from common.engine.weights import Weights

RULES: list[UpdateRule] = [SGD(0.1), Momentum(0.9, 0.1), AdamW(eps=1e-3)]
REBUILT = [
    {"unroll": Unroll.recompute, "keep": keep, "snapshots": snapshots}
    for keep, snapshots in itertools.product((0, 1, 2), Snapshots)
]
EXACT: list[dict[str, Any]] = [{"unroll": Unroll.stored}, {"unroll": Unroll.truncate, "keep": 2}, *REBUILT]
EVERY: list[dict[str, Any]] = [
    *EXACT,
    *({"unroll": Unroll.truncate, "keep": keep} for keep in (0, 1)),
    *({"unroll": Unroll.tgu, "keep": keep} for keep in (0, 1, 2)),
    {"unroll": Unroll.first_order},
    {"unroll": Unroll.none},
]
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


class Problem:
    """A network of two layers by hand, four steps' data, one rate a tensor."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.double, generator=draw)

        self.start: Weights = {"in": random(4, 3).requires_grad_(), "out": random(4).requires_grad_()}
        self.gain = (1 + 0.1 * random()).requires_grad_()
        self.data = [(random(5, 3), random(5)) for _ in range(4)]
        self.rates = LearnedRates(list(self.start), steps=1, start=0.05).double()
        self.moments = [{n: [random(*w.shape), random(*w.shape).abs()] for n, w in self.start.items()} for _ in "ab"]

    def loss(self, weights: Weights, part: tuple[Tensor, Tensor]) -> Tensor:
        hidden = torch.tanh(part[0] @ weights["in"].T)
        return (self.gain * hidden @ weights["out"] - part[1]).square().mean()

    def adapt(self, start: Weights, first: int, steps: int, rule: UpdateRule, **how: Any) -> Adapted:
        """Steps on the data from `first` on."""
        given = {"rates": self.rates, "also": [self.gain], **how}
        return adapt(self.loss, start, lambda step: [self.data[first + step]], steps=steps, rule=rule, **given)

    def state(self, rule: UpdateRule, count: int = 3) -> RuleState:
        """Moments after `count` steps, leaves that learn."""
        return RuleState(
            count,
            {name: [b.clone().requires_grad_() for b in own[: rule.buffers]] for name, own in self.moments[0].items()},
        )


def flat(state: RuleState) -> list[Tensor]:
    return [b for own in state.buffers.values() for b in own]


def outer(found: Adapted) -> Tensor:
    """Of the weights and of the state."""
    return torch.stack([x.sin().sum() for x in (*found.weights.values(), *flat(found.state))]).sum()


@pytest.mark.parametrize("how", EVERY, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_two_steps_and_two_more_are_four_to_the_bit(rule: UpdateRule, how: dict[str, Any]) -> None:
    problem = Problem()
    whole = problem.adapt(problem.start, 0, 4, rule, **how)
    first = problem.adapt(problem.start, 0, 2, rule, **how)
    second = problem.adapt(first.weights, 2, 2, rule, state=first.state, **how)
    assert first.losses + second.losses == whole.losses
    assert (first.state.count, second.state.count, whole.state.count) == (2, 4, 4)
    assert all(torch.equal(second.weights[name], w) for name, w in whole.weights.items())
    assert list(second.state.buffers) == list(problem.start)
    assert len(flat(second.state)) == 2 * rule.buffers
    assert all(map(torch.equal, flat(second.state), flat(whole.state)))
    fresh = problem.adapt(first.weights, 2, 2, rule, **how)
    assert rule.buffers == 0 or not torch.equal(fresh.weights["in"], second.weights["in"])


@pytest.mark.parametrize("how", EXACT, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_meta_gradient_through_a_chain_is_that_of_one_stored_graph(rule: UpdateRule, how: dict[str, Any]) -> None:
    """Of start, incoming state, rates and what else learns; the outer loss reads the outgoing state too."""
    problem = Problem()
    state = problem.state(rule)
    inputs = [*problem.start.values(), *flat(state), problem.rates.numbers, problem.gain]

    wanted = torch.autograd.grad(outer(problem.adapt(problem.start, 0, 4, rule, state=state)), inputs)
    first = problem.adapt(problem.start, 0, 2, rule, state=state, **how)
    second = problem.adapt(first.weights, 2, 2, rule, state=first.state, **how)
    torch.testing.assert_close(torch.autograd.grad(outer(second), inputs), wanted, **CLOSE)
    assert all(x.ne(0).any() for x in wanted)

    halves = [problem.adapt(problem.start, 0, 2, rule, state=state, **how)]  # a fresh graph
    for step in (2, 3):
        halves.append(problem.adapt(halves[-1].weights, step, 1, rule, state=halves[-1].state))  # stored after it
    torch.testing.assert_close(torch.autograd.grad(outer(halves[-1]), inputs), wanted, **CLOSE)


@pytest.mark.parametrize("rule", RULES[1:], ids=repr)
def test_it_is_that_of_finite_differences_in_the_incoming_state(rule: UpdateRule) -> None:
    problem = Problem()
    given = problem.state(rule)

    def run(*buffers: Tensor) -> tuple[Tensor, ...]:
        rest = iter(buffers)
        state = RuleState(given.count, {name: [next(rest) for _ in own] for name, own in given.buffers.items()})
        found = problem.adapt(problem.start, 0, 2, rule, state=state, rates=0.05)
        return (*(w for w in found.weights.values()), *flat(found.state))

    assert torch.autograd.gradcheck(run, flat(given))


@pytest.mark.parametrize("how", REBUILT, ids=str)
def test_an_outer_loss_of_the_state_alone_has_its_gradient(how: dict[str, Any]) -> None:
    problem = Problem()
    inputs = [*problem.start.values(), problem.rates.numbers]
    found = []
    for unroll in ({"unroll": Unroll.stored}, how):
        state = problem.adapt(problem.start, 0, 3, AdamW(eps=1e-3), **unroll).state
        found.append(torch.autograd.grad(torch.stack([b.sin().sum() for b in flat(state)]).sum(), inputs))
    torch.testing.assert_close(*found, **CLOSE)


def test_first_order_passes_through_a_chain_as_through_one_call() -> None:
    problem, how = Problem(), {"unroll": Unroll.first_order}
    inputs = [*problem.start.values(), problem.rates.numbers]
    whole = problem.adapt(problem.start, 0, 4, Momentum(), **how)
    first = problem.adapt(problem.start, 0, 2, Momentum(), **how)
    second = problem.adapt(first.weights, 2, 2, Momentum(), state=first.state, **how)
    found = [torch.autograd.grad(outer(each), inputs) for each in (whole, second)]
    torch.testing.assert_close(*found, **CLOSE)


def test_truncated_steps_take_the_state_as_a_constant() -> None:
    problem = Problem()
    state = problem.state(Momentum())
    found = problem.adapt(problem.start, 0, 3, Momentum(), state=state, unroll=Unroll.truncate, keep=1)
    gradients = torch.autograd.grad(outer(found), [*problem.start.values(), *flat(state)], allow_unused=True)
    assert all(g is not None for g in gradients[:2]) and gradients[2:] == (None, None)


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_neither_start_nor_state_is_written_to(how: dict[str, Any]) -> None:
    problem, rule = Problem(), AdamW()
    state = problem.state(rule)
    watched = [*problem.start.values(), *flat(state)]
    before = [(x.detach().clone(), x._version) for x in watched]
    found = problem.adapt(problem.start, 0, 2, rule, state=state, **how)
    if how["unroll"] is Unroll.none:
        assert not any(x.requires_grad for x in (*found.weights.values(), *flat(found.state)))
    else:
        outer(found).backward()
    for x, (value, version) in zip(watched, before, strict=True):
        assert torch.equal(x, value) and x._version == version
    assert not {x.data_ptr() for x in flat(found.state)} & {x.data_ptr() for x in watched}


def test_an_incoming_state_that_is_written_to_before_the_backward_pass_is_noticed() -> None:
    problem, rule = Problem(), Momentum()
    state = problem.state(rule)
    found = problem.adapt(problem.start, 0, 2, rule, state=state, unroll=Unroll.recompute)
    with torch.no_grad():
        flat(state)[0].add_(1)
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
        outer(found).backward()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (
            lambda problem: problem.state(Momentum()),
            "state after 3 steps does not fit in of shape .4, 3., of which AdamW",
        ),
        (
            lambda problem: RuleState(1),
            "state after 1 steps does not fit in of shape .4, 3., of which AdamW has 2 buffers",
        ),
        (
            lambda problem: problem.state(AdamW(), count=0),
            "state after 0 steps .* AdamW has 0 buffers then: give the state",
        ),
    ],
)
def test_a_state_of_another_rule_or_of_other_weights_is_refused(
    state: Callable[[Problem], RuleState], text: str
) -> None:
    problem = Problem()
    with pytest.raises(ValueError, match=text):
        problem.adapt(problem.start, 0, 2, AdamW(), state=state(problem))


# ---- data by step


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_data_by_step_are_those_of_one_call_a_step(how: dict[str, Any]) -> None:
    problem = Problem()
    at_once = problem.adapt(problem.start, 0, 3, SGD(), **how)
    weights = problem.start
    for step in range(3):
        weights = adapt(problem.loss, weights, [problem.data[step]], steps=1, rule=SGD(), rates=problem.rates).weights
    assert all(torch.equal(w, weights[name]) for name, w in at_once.weights.items())


@pytest.mark.parametrize("keep", [0, 1])
def test_a_rebuilt_step_asks_for_its_data_again_by_the_same_index(keep: int) -> None:
    problem, asked = Problem(), []

    def parts(step: int) -> list[Any]:
        asked.append(step)
        return problem.data[step : step + 2]  # two micro-batches

    how = {"steps": 3, "rule": SGD(), "rates": problem.rates, "also": [problem.gain]}
    found = adapt(problem.loss, problem.start, parts, unroll=Unroll.recompute, keep=keep, **how)
    assert asked == [0, 1, 2]
    outer(found).backward()
    assert asked == [0, 1, 2, *range(2 - keep, -1, -1)]


def test_data_drawn_inside_the_step_are_drawn_again() -> None:
    problem, found = Problem(), []

    def parts(step: int) -> list[Any]:
        x, y = problem.data[step]
        return [(x + 0.1 * torch.randn_like(x), y)]

    for unroll in (Unroll.stored, Unroll.recompute):
        torch.manual_seed(0)
        fast = adapt(
            problem.loss, problem.start, parts, steps=3, rule=Momentum(), rates=0.05, unroll=unroll, also=[problem.gain]
        )
        found.append(torch.autograd.grad(outer(fast), list(problem.start.values())))
    torch.testing.assert_close(*found, **CLOSE)
