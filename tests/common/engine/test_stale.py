"""A compiled inner loss is the loss as it is now, whatever has changed since it was traced; or it is refused."""

import logging
import random
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from common.engine import compiled
from common.engine.compiled import Compiled
from common.engine.derivatives import plain_gradient
from common.engine.inner import adapt
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights, buffers_of, call, select
from common.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
"""Of torch's own modules, when its compiler is first read."""
SCALE = 1.0
ASKED: ContextVar[float] = ContextVar("asked", default=1.0)


@pytest.fixture(autouse=True)
def traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph itself in place of the compiled one: seconds less, and as stale."""
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)


class Kind(Enum):
    square = "square"
    quartic = "quartic"


@dataclass
class Config:
    scale: float = 1.0
    kind: Kind = Kind.square
    more: dict[str, list[float]] = field(default_factory=lambda: {"scales": [1.0, 1.0]})


class Slotted:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1.0


class Learner:
    factor = 1.0

    def __init__(self, network: nn.Module) -> None:
        self.network, self.config, self.table = network, Config(), torch.ones(2, 2, dtype=torch.double)
        self.slotted, self.name, self.array = Slotted(), "scale", numpy.ones(2)
        self.settings = SimpleNamespace(scale=1.0)

    @property
    def scale(self) -> float:
        return self.settings.scale * float(self.array[0])

    def helper(self, x: Tensor) -> Tensor:
        x = x * self.config.more["scales"][1] * self.slotted.scale * self.scale * self.factor
        return x.pow(2 if self.config.kind is Kind.square else 4) * getattr(self.config, self.name)

    def loss(self, weights: Weights, x: Tensor) -> Tensor:
        return self.helper(call(self.network, weights, x) @ self.table).mean()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Dropout(0.3), nn.Linear(2, 2)).double().eval()


def gradient_of(loss: Any, weights: Weights, x: Tensor) -> list[Tensor]:
    torch.manual_seed(5)
    found, value = loss.gradient(weights, x) if isinstance(loss, Compiled) else plain_gradient(loss, weights, x)
    return [*found, value]


def follows(both: Compiled, weights: Weights, x: Tensor, *changes: Callable[[], Any], differs: bool = True) -> None:
    """After each change the compiled loss and its product are the plain ones; and the change acts."""
    before = gradient_of(both.loss, weights, x)
    torch.testing.assert_close(gradient_of(both, weights, x), before, rtol=1e-10, atol=1e-13)
    for change in changes:
        change()
        expected = gradient_of(both.loss, weights, x)
        assert not differs or not torch.allclose(expected[0], before[0], rtol=1e-6)
        torch.testing.assert_close(gradient_of(both, weights, x), expected, rtol=1e-10, atol=1e-13)
        outer, fast_ones = [], {id(w) for w in weights.values()}
        also = [w for w in both.module.parameters() if w.requires_grad and id(w) not in fast_ones]
        for loss, unroll in ((both, Unroll.recompute), (both.loss, Unroll.stored)):
            torch.manual_seed(5)
            fast = adapt(loss, weights, [x], steps=2, rule=SGD(), rates=0.1, unroll=unroll, also=also).weights
            total = torch.stack([w.sin().sum() for w in fast.values()]).sum()
            outer.append(torch.autograd.grad(total, [w for w in weights.values() if w.requires_grad]))
        torch.testing.assert_close(outer[0], outer[1], rtol=1e-9, atol=1e-12)
        before = expected


def data() -> Tensor:
    return torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "change",
    [
        lambda own: setattr(own.config, "scale", 3.0),
        lambda own: setattr(own.config, "kind", Kind.quartic),
        lambda own: own.config.more["scales"].__setitem__(1, 2.0),
        lambda own: setattr(own.slotted, "scale", 2.0),
        lambda own: setattr(own.settings, "scale", 2.0),
        lambda own: own.array.__setitem__(0, 2.0),
        lambda own: setattr(own, "config", Config(scale=0.5)),
        lambda own: setattr(own, "factor", 2.0),
        lambda own: setattr(own, "helper", lambda x: x.sin()),
        lambda own: own.table.mul_(2),
        lambda own: setattr(own, "table", 3 * own.table),
        lambda own: setattr(own, "table", torch.arange(10, dtype=torch.double).view(2, 5)),
        lambda own: own.network[0].register_forward_hook(lambda module, given, x: x + 0.3),
        lambda own: own.network[3].register_forward_pre_hook(lambda module, given: (given[0] * 2,)),
        lambda own: own.network.train(),
        lambda own: own.network.__setitem__(1, nn.ReLU()),
        lambda own: own.network.append(nn.Hardtanh(-0.1, 0.1)),
        lambda own: setattr(own.network[0], "forward", lambda x: x[:, :2]),
    ],
)
def test_what_a_learner_reads_may_change(change: Callable[[Learner], Any]) -> None:
    own = Learner(network())
    start = {"3.weight": own.network[3].weight}  # type: ignore[dict-item]
    follows(Compiled(own.loss, own.network), start, data(), lambda: change(own))


def test_dropout_its_probability_and_requires_grad_may_change() -> None:
    net = network().train()

    def loss(weights: Weights, x: Tensor) -> Tensor:
        y = call(net, weights, x).square().mean()
        return y * 2 if net[0].weight.requires_grad else y  # type: ignore[union-attr]

    start = {"3.weight": net[3].weight}
    net[0].requires_grad_(False), net[3].bias.requires_grad_(False)  # type: ignore[union-attr,operator]
    follows(Compiled(loss, net), start, data(), lambda: setattr(net[2], "p", 0.8), net.eval)


def test_numbers_in_closures_defaults_partials_globals_and_context_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    net, scale, scales = network(), 1.0, [1.0]

    def inner(x: Tensor, power: float = 2.0) -> Tensor:
        return (x * scale * SCALE * ASKED.get()).pow(power)

    def loss(weights: Weights, x: Tensor, *, numbers: list[float], more: float = 1.0) -> Tensor:
        return (inner(call(net, weights, x)) * scales[0] * numbers[0] * more).sum()

    numbers = [1.0]

    def rescale() -> None:
        nonlocal scale
        scale = 3.0

    def more() -> None:
        loss.__kwdefaults__["more"] = 1.5  # type: ignore[index]

    def power() -> None:
        inner.__defaults__ = (4.0,)

    changes = [
        rescale, more, power,
        lambda: scales.__setitem__(0, 2.0),
        lambda: numbers.__setitem__(0, 0.5),
        lambda: monkeypatch.setitem(globals(), "SCALE", 0.5),
        lambda: ASKED.set(2.0),
    ]  # fmt: skip
    token = ASKED.set(1.0)
    follows(Compiled(partial(loss, numbers=numbers), net), select(net, ["3.*"]), data(), *changes)
    ASKED.reset(token)


def test_buffers_and_frozen_weights_may_be_replaced() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).double().eval()
    net[0].requires_grad_(False), net[1].requires_grad_(False)
    loss = lambda w, x: call(net, w, x).sin().mean()  # noqa: E731

    def fresh() -> None:
        net[1].running_mean = torch.full((2,), 0.7, dtype=torch.double)
        net[0].weight = nn.Parameter(net[0].weight.detach() * 2, requires_grad=False)

    both = Compiled(loss, net)
    follows(both, select(net, ["2.*"]), data(), lambda: net[1].running_mean.add_(1), fresh)  # type: ignore[union-attr,operator]
    assert len(both._programs) == 1


def test_tensors_in_the_closure_are_inputs_of_one_program_and_lend_their_shape() -> None:
    net, held = network(), {"target": torch.zeros(2, dtype=torch.double)}

    def loss(weights: Weights, x: Tensor) -> Tensor:
        far = (call(net, weights, x) - held["target"]).square().mean()
        return far * (1 if held["target"].dim() == 1 else 5)

    both = Compiled(loss, net)
    change = lambda: held.__setitem__("target", torch.ones(2, dtype=torch.double))  # noqa: E731
    follows(both, select(net, ["3.*"]), data(), change)
    assert len(both._programs) == 1
    follows(both, select(net, ["3.*"]), data(), lambda: held.__setitem__("target", torch.ones(4, 2).double()))
    assert len(both._programs) == 2


def test_numbers_among_the_data_are_told_apart_by_type_and_objects_are_looked_into() -> None:
    net = network()

    def loss(weights: Weights, part: tuple[Tensor, Any]) -> Tensor:
        x, scale = part
        scale = scale.scale if isinstance(scale, Config) else 2.0 if scale is True else scale
        return call(net, weights, x).square().mean() * scale

    both, config = Compiled(loss, net), Config()
    for scale in (1, True, 1.5, config):
        torch.testing.assert_close(*(gradient_of(one, select(net), (data(), scale)) for one in (both, loss)))  # type: ignore[arg-type]
    config.scale = 3.0
    torch.testing.assert_close(*(gradient_of(one, select(net), (data(), config)) for one in (both, loss)))  # type: ignore[arg-type]


def test_autocast_and_the_default_dtype_may_change() -> None:
    net = network().float()
    loss = lambda w, x: (call(net, w, x) * torch.full((), 1 / 3)).square().mean()  # noqa: E731
    both, x = Compiled(loss, net), data().float()
    plain = gradient_of(both, select(net), x)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        half, wanted = gradient_of(both, select(net), x), gradient_of(loss, select(net), x)
    torch.testing.assert_close(half, wanted, rtol=2e-2, atol=1e-3)
    assert not torch.equal(plain[-1], half[-1])
    torch.set_default_dtype(torch.double)
    try:
        assert gradient_of(both, select(net), x)[-1].dtype is gradient_of(loss, select(net), x)[-1].dtype
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_value_of_a_tensor_that_python_reads_is_checked_once_a_call_of_adapt() -> None:
    net, scale = network(), torch.tensor(1.0)

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return call(net, weights, x).square().mean() * scale.item()

    both = Compiled(loss, net)
    follows(both, select(net, ["3.*"]), data(), lambda: scale.fill_(3.0), lambda: scale.fill_(2.0))


@pytest.mark.parametrize("kind", ["python", "numpy", "own"])
def test_random_numbers_of_other_generators_are_refused(kind: str) -> None:
    net, own = network(), torch.Generator()
    draw = {"python": random.random, "numpy": numpy.random.rand, "own": lambda: torch.rand((), generator=own)}[kind]
    loss = lambda w, x: call(net, w, x).square().mean() * draw()  # noqa: E731
    with pytest.raises(
        UserError, match="^inner.compile=true: the inner loss draws random numbers from another generat"
    ):
        Compiled(loss, net).gradient(select(net), data())


def test_a_loss_that_is_another_at_every_call_is_refused() -> None:
    net = network()

    def numbers() -> Iterator[float]:
        yield from range(1, 1000)

    stream = numbers()
    loss = lambda w, x: call(net, w, x).square().mean() * next(stream)  # noqa: E731
    text = r"^inner.compile=true: the compiled inner loss is .* where the loss is .*; perhaps by stream \(generator\)"
    with pytest.raises(UserError, match=text):
        Compiled(loss, net).gradient(select(net), data())


def test_a_loss_that_chooses_by_the_values_of_data_is_refused_in_words() -> None:
    net = network()
    loss = lambda w, x: call(net, w, x).square().mean() * (2 if x.sum() > 0 else 1)  # noqa: E731
    with pytest.raises(
        UserError, match="^inner.compile=true: the inner loss cannot be traced, as one that chooses by "
    ):
        Compiled(loss, net).gradient(select(net), data())


@pytest.mark.parametrize("given", ["its own", "beside the weights", "in data"])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_batch_norm_in_training_mode_is_refused_and_left_as_it_was(given: str, layer: Any) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1)), layer(2, track_running_stats=True), nn.Flatten())
    net = net.double().train()
    if layer is nn.InstanceNorm1d:
        net[1] = nn.Unflatten(1, (1, 2))
        net[2] = layer(1, track_running_stats=True).double()
    buffers = buffers_of(net)
    if given == "its own":
        loss: Any = lambda w, x: call(net, w, x).square().mean()  # noqa: E731
    elif given == "in data":
        loss = lambda w, part: call(net, w | part[1], part[0]).square().mean()  # noqa: E731
    else:
        loss = lambda w, x: call(net, w | buffers, x).square().mean()  # noqa: E731
    before = {name: value.clone() for name, value in [*net.named_buffers(), *buffers.items()]}
    part = (data(), buffers) if given == "in data" else data()
    with pytest.raises(UserError, match="^inner.compile=true: the inner loss writes to a tensor that was there before"):
        adapt(Compiled(loss, net), select(net), [part], steps=2, rule=SGD(), rates=0.1, unroll=Unroll.recompute)
    assert all(torch.equal(value, before[name]) for name, value in [*net.named_buffers(), *buffers.items()])
    net.eval()
    torch.testing.assert_close(
        gradient_of(Compiled(loss, net), select(net), part), gradient_of(loss, select(net), part)
    )


def test_too_many_states_run_uncompiled_and_the_value_that_changes_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "MOST_SHAPES", 2)
    net, scale = network(), [1.0]
    both = Compiled(lambda w, x: call(net, w, x).square().mean() * scale[0], net)
    with caplog.at_level(logging.WARNING):
        follows(both, select(net, ["3.*"]), data(), *[partial(scale.__setitem__, 0, float(i)) for i in range(2, 6)])
    assert caplog.messages == [
        "inner.compile=true: more than 2 shapes of data and values of what the loss reads (scale[0] is another); "
        "further ones run uncompiled (pass it as a tensor in the data)"
    ]


def test_what_else_learns_may_be_another_at_the_next_call() -> None:
    net = network()
    loss = lambda w, x: call(net, w, x).square().mean()  # noqa: E731
    start, others = select(net, ["3.weight"]), [net[0].weight, net[0].bias, net[3].bias]
    both, vector = Compiled(loss, net), [torch.ones(2, 2, dtype=torch.double)]
    first = both.product(start, data(), vector, others)
    turned = both.product(start, data(), vector, others[::-1])
    torch.testing.assert_close(turned, (first[0], first[1][::-1]))
