"""Whatever the network: the gradients of plain torch, or one message; and the network is what it was."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from common.engine.compiled import Compiled
from common.engine.footprint import footprint
from common.engine.inner import adapt
from common.engine.plan import choose
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.settings import Unroll
from common.engine.weights import Weights, buffers_of, call, select
from common.errors import UserError
from tests.common.engine.zoo import CHECKPOINTED, RIGHT, SHAPES, Shape

STEPS, KEEP, DECAY, EPS, BETAS = 3, 1, 0.01, 1e-4, (0.9, 0.99)
RULES: dict[str, tuple[UpdateRule, float]] = {
    "sgd": (SGD(DECAY), 0.05),
    "adamw": (AdamW(*BETAS, EPS, DECAY), 0.01),
}
"""Each with its rate."""
CLOSE = {"rtol": 1e-8, "atol": 1e-10}
UNROLLS = list(Unroll)
EXACT = {Unroll.stored, Unroll.recompute, Unroll.auto}
PLAIN = (bool, int, float, str)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_.*able` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks:UserWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # of dynamo
]


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph itself in place of the compiled one: seconds less."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda of, **how: compile_(of, **how) if "backend" in how else of)


@dataclass(frozen=True)
class Outcome:
    """Of an outer gradient."""

    loss: Tensor
    gradients: dict[str, Tensor]
    """By every parameter that learns."""
    buffers: dict[str, Tensor]
    """What a forward pass may have written to."""
    random: Tensor
    """State of torch's generator."""


def objective(output: Tensor) -> Tensor:
    """Of any shape -> []."""
    return output.square().mean() + (output.flatten() * torch.linspace(-1, 1, output.numel())).sin().mean()


def learning(net: nn.Module) -> dict[str, Tensor]:
    return {name: w for name, w in net.named_parameters() if w.requires_grad}


def differentiated(outer: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not outer.requires_grad:
        return {name: torch.zeros_like(w) for name, w in inputs.items()}
    found = torch.autograd.grad(outer, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(inputs, found, strict=True))


# The reference: plain torch


class Reference:
    """A twin of the network; its places are filled by hand and stay so."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.net = shape.plain(shape.build())
        self.learning = learning(self.net)
        named = dict(self.net.named_parameters())
        # what stands around a network comes before its names
        self.start = {n: w for n, w in named.items() if any(fnmatchcase(n, pattern) for pattern in shape.fast)}
        self.slots = [
            (table, key, name)
            for name, w in self.start.items()
            for table in [module._parameters for module in self.net.modules()]
            for key, held in table.items()
            if held is w
        ]

    def loss(self, weights: Mapping[str, Tensor], step: int) -> Tensor:
        for table, key, name in self.slots:
            table[key] = weights[name]
        for module in self.net.modules():
            if isinstance(module, nn.RNNBase):
                module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]
        return objective(self.shape.read(self.net(*self.shape.data(step))))


State = dict[str, tuple[Tensor, Tensor]]


def stepped(rule: str, weights: Weights, gradients: Weights, state: State, count: int) -> tuple[Weights, State]:
    """SGD, and AdamW (Loshchilov and Hutter 2019, algorithm 2), written out."""
    rate, (beta1, beta2) = RULES[rule][1], BETAS
    if rule == "sgd":
        return {name: w - rate * (gradients[name] + DECAY * w) for name, w in weights.items()}, {}
    after, moments = {}, {}
    for name, w in weights.items():
        g = gradients[name]
        mean, square = state.get(name, (torch.zeros_like(w), torch.zeros_like(w)))
        mean, square = beta1 * mean + (1 - beta1) * g, beta2 * square + (1 - beta2) * g * g
        moments[name] = mean, square
        corrected = square / (1 - beta2**count)
        flat = corrected == 0  # the root has no slope there
        root = torch.where(flat, 0.0, torch.where(flat, 1.0, corrected).sqrt())
        after[name] = w * (1 - rate * DECAY) - rate * (mean / (1 - beta1**count)) / (root + EPS)
    return after, moments


def gradients_at(twin: Reference, weights: Weights, step: int, graph: bool) -> Weights:
    weights = {name: w if w.requires_grad else w.detach().requires_grad_() for name, w in weights.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        value = twin.loss(weights, step)
    found = torch.autograd.grad(
        value, list(weights.values()), create_graph=graph, allow_unused=True, materialize_grads=True
    )
    return {name: g if graph else g.detach() for name, g in zip(weights, found, strict=True)}


@cache
def reference(name: str, rule: str, unroll: Unroll) -> Outcome:
    """By the definitions of `common.engine.settings.Unroll`."""
    twin = Reference(SHAPES[name])
    torch.manual_seed(1)
    weights: Weights = dict(twin.start)
    state: State = {}
    before = STEPS - KEEP
    for step in range(STEPS):
        constant = unroll in (Unroll.first_order, Unroll.none)
        constant |= unroll in (Unroll.tgu, Unroll.truncate) and step < before
        apart = {name: w.view_as(w) for name, w in weights.items()}
        gradients = gradients_at(twin, apart, step, graph=not constant)
        weights, state = stepped(rule, apart, gradients, state, step + 1)
        if unroll is Unroll.none or (unroll is Unroll.truncate and constant):
            weights = {name: w.detach() for name, w in weights.items()}
        if unroll is Unroll.truncate and step == before - 1:
            weights = {name: w + (twin.start[name] - twin.start[name].detach()) for name, w in weights.items()}
    with torch.set_grad_enabled(unroll is not Unroll.none):
        outer = twin.loss(weights, STEPS)
    found = differentiated(outer, twin.learning)
    return Outcome(outer.detach(), found, buffers_now(twin.net), torch.get_rng_state())


# The engine


def buffers_now(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.named_buffers()}


class Case:
    """A network, and its loss through `call`, which counts its calls."""

    def __init__(self, name: str) -> None:
        self.shape = shape = SHAPES[name]
        self.net = shape.build()
        self.start = select(self.net, shape.fast)
        self.mapped = buffers_of(self.net) if shape.mapped else {}
        fast = {id(w) for w in self.start.values()}
        self.also = [w for w in learning(self.net).values() if id(w) not in fast]
        self.calls = 0
        self.around: Callable[[str], None] = lambda place: None
        self.inner = Compiled(self.loss, self.net) if shape.compiled else self.loss

    def loss(self, weights: Weights, data: tuple[Any, ...]) -> Tensor:
        self.around("before")
        value = objective(self.shape.read(call(self.net, {**weights, **self.mapped}, *data)))
        self.around("after")
        return value

    def planned(self, rule: UpdateRule) -> tuple[Unroll, int]:
        """What inner.unroll=auto chooses where only some steps can be stored."""
        data = self.shape.data(0)
        cost = footprint(self.inner, lambda w: self.loss(w, data), self.start, [data], rule, self.also)
        budget = (cost.peak(Unroll.stored, STEPS, 0) + cost.peak(Unroll.recompute, STEPS, 0)) // 2
        return choose(cost, STEPS, budget)

    def outcome(self, rule: str, unroll: Unroll) -> Outcome:
        own, rate = RULES[rule]
        keep = KEEP if unroll in (Unroll.truncate, Unroll.tgu) else 0
        if unroll is Unroll.auto:
            unroll, keep = self.planned(own)
        torch.manual_seed(1)
        adapted = adapt(
            self.inner, self.start, lambda step: [self.shape.data(step)], steps=STEPS, rule=own, rates=rate,
            unroll=unroll, keep=keep, also=self.also,
        )  # fmt: skip
        with torch.set_grad_enabled(unroll is not Unroll.none):
            outer = self.loss(adapted.weights, self.shape.data(STEPS))
        found = differentiated(outer, learning(self.net))
        written = self.mapped or buffers_now(self.net)
        return Outcome(outer.detach(), found, written, torch.get_rng_state())


class Picture:
    """All of a network that is to stay: every place with its tensor, values, modes, what has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.held = self._held()
        self.values = {place: w.detach().clone() for place, w in self.held.items()}
        self.rest = self._rest()

    def check(self, buffers: Mapping[str, Tensor] | None = None, but: bool = False) -> None:
        """`buffers`: what forward passes have made of them; None: nothing. `but`: whatever is in them."""
        now = self._held()
        assert list(now) == list(self.held)
        expected = {}
        if buffers is not None:
            named = dict(self.net.named_buffers())
            expected = {id(named[name]): value for name, value in buffers.items()}
        for place, was in self.held.items():
            if isinstance(was, nn.Parameter):
                assert now[place] is was and was.equal(self.values[place]), f"{place} is another"
                assert was.grad is None and was.is_leaf, f"{place} has a gradient"
            elif not but:
                value = expected.get(id(now[place]), self.values[place])
                if value.equal(self.values[place]):
                    assert now[place].equal(value), f"{place} was written to"
                else:
                    torch.testing.assert_close(now[place], value, **CLOSE, msg=f"{place}: {now[place]}, not {value}")
        assert self._rest() == self.rest
        for module in self.net.modules():
            if isinstance(module, nn.RNNBase):
                own = [module._parameters[name] for name in module._flat_weights_names]
                assert all(a is b for a, b in zip(module._flat_weights, own, strict=True))

    def _held(self) -> dict[tuple[str, str], Tensor]:
        return {
            (prefix, key): value
            for prefix, module in self.net.named_modules(remove_duplicate=False)
            for table in (module._parameters, module._buffers)
            for key, value in table.items()
            if value is not None
        }

    def _rest(self) -> Any:
        modules = list(self.net.modules())
        return (
            list(self.net.state_dict()),
            [name for name, _ in self.net.named_parameters(remove_duplicate=False)],
            [w.requires_grad for w in self.net.parameters()],
            [id(module) for module in modules],
            [{name: value for name, value in vars(module).items() if isinstance(value, PLAIN)} for module in modules],
        )


def check(name: str, rule: str, unroll: Unroll) -> None:
    """The property, of one outer gradient."""
    case = Case(name)
    before = Picture(case.net)
    if unroll in case.shape.refused:
        with pytest.raises(UserError, match=case.shape.message):
            case.outcome(rule, unroll)
        before.check()
        return
    expected = reference(name, rule, Unroll.stored if unroll in EXACT else unroll)
    found = case.outcome(rule, unroll)

    def close(ours: Any, theirs: Any) -> None:
        torch.testing.assert_close(ours, theirs, **CLOSE, msg=lambda text: f"{rule}, {unroll}: {text}")

    close(found.loss, expected.loss)
    for own, of_twin in zip(found.gradients.values(), expected.gradients.values(), strict=True):
        close(own, of_twin)
    buffers = dict(zip(found.buffers, expected.buffers.values(), strict=True))
    close(found.buffers, buffers)
    assert found.random.equal(expected.random), f"{rule}, {unroll}: other random numbers"
    before.check(None if case.mapped else buffers)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.usefixtures("traced_alone")
def test_the_gradients_of_plain_torch_or_one_message_and_the_network_is_what_it_was(name: str) -> None:
    for rule in RULES:
        for unroll in Unroll:
            check(name, rule, unroll)


class Broken(Exception):
    """Of a loss."""


@contextmanager
def breaking(case: Case, place: str, at: int) -> Iterator[None]:
    """Call `at` of the loss, from 0, ends in an error: before the network, inside its first layer, or after it."""
    inside = False

    def around(now: str) -> None:
        nonlocal inside
        inside = now == "before" and place == "inside" and case.calls == at
        if now == place and case.calls == at:
            raise Broken
        case.calls += now == "after"

    def within(module: nn.Module, inputs: Any, output: Any) -> None:
        if inside:
            raise Broken

    case.around = around
    handle = register_module_forward_hook(within)
    try:
        yield
    finally:
        handle.remove()


WHEN = [(Unroll.none, 0), (Unroll.stored, 1), (Unroll.tgu, STEPS), (Unroll.recompute, STEPS + 2)]
"""In a step without and with its graph, in the outer loss (call 3), and while steps are rebuilt (calls 4 to 6)."""


@pytest.mark.parametrize("name", [name for name in RIGHT if not SHAPES[name].compiled])
@pytest.mark.parametrize("place", ["before", "inside", "after"])
def test_an_error_in_the_loss_is_passed_on_and_the_network_is_what_it_was(name: str, place: str) -> None:
    for unroll, at in WHEN:
        case = Case(name)
        before = Picture(case.net)
        with breaking(case, place, at), pytest.raises(Broken):
            case.outcome("adamw", unroll)
        assert case.calls == at
        rebuilding = unroll is Unroll.recompute
        expected = reference(name, "adamw", Unroll.stored).buffers if rebuilding and not case.mapped else None
        before.check(expected, but=not rebuilding)


@pytest.mark.parametrize("name", CHECKPOINTED)
@pytest.mark.parametrize("unroll", [Unroll.none, Unroll.stored, Unroll.recompute])
def test_an_error_while_a_checkpoint_is_run_again_leaves_the_network_what_it_was(name: str, unroll: Unroll) -> None:
    case = Case(name)
    before = Picture(case.net)
    running = False

    def around(now: str) -> None:
        nonlocal running
        running = now == "before"

    def within(module: nn.Module, inputs: Any) -> None:
        if not running:
            raise Broken

    case.around = around
    handle = register_module_forward_pre_hook(within)
    try:
        with pytest.raises(Broken):
            case.outcome("sgd", unroll)
    finally:
        handle.remove()
    before.check()
