"""A rebuilt step is the step that was taken: the numbers of the stored graph, the module's state too, or an error."""

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from contextvars import ContextVar
from copy import deepcopy
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as older_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm

from common.engine.inner import adapt
from common.engine.rules import SGD, AdamW
from common.engine.settings import Snapshots, Unroll
from common.engine.twice.lean import make_lean
from common.engine.weights import Weights, buffers_of, call, select, stack, stack_of
from common.errors import UserError

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
STEPS = 3


class Counting(nn.Module):
    """Scales by how often it was called, and remembers a mean in a buffer that it replaces."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("mean", torch.zeros(4, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.5 * self.mean + x.detach().mean(0)
        return x * (1 + 0.3 * self.calls) - self.mean


class Codebook(nn.Module):
    """Writes to its buffer behind autograd's back."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.ones(4, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        self.codes.data.mul_(0.8).add_(x.detach().mean(0))
        return x * self.codes.clone()


def network(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), *middle, nn.Tanh(), nn.Linear(4, 2)).double().train()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lean": lambda: make_lean(network(nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 4).double())),
    "dropout": lambda: network(nn.Dropout(0.4)),
    "batch norm": lambda: network(nn.BatchNorm1d(4)),
    "batch norm, cumulative": lambda: network(nn.BatchNorm1d(4, momentum=None)),
    "instance norm": lambda: network(
        nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
    ),
    "spectral norm": lambda: network(spectral_norm(nn.Linear(4, 4).double())),
    "older spectral norm": lambda: network(older_spectral_norm(nn.Linear(4, 4).double())),
    "a count of its own": lambda: network(Counting()),
    "a buffer written to unseen": lambda: network(Codebook()),
    "all": lambda: network(nn.BatchNorm1d(4), nn.Dropout(0.3), spectral_norm(nn.Linear(4, 4).double()), Counting()),
}


def data(seed: int = 0) -> Tensor:
    return torch.randn(6, 3, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def fast_of(net: nn.Module) -> Weights:
    return {name: w for name, w in select(net).items() if w.requires_grad}


def plain(net: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    return call(net, weights, x).sin().square().mean()


def outcome(
    net: nn.Module,
    loss: Any,
    unroll: Unroll,
    between: Callable[[], None] = lambda: None,
    parts: Any = None,
    **more: Any,
) -> tuple[list[Tensor], dict[str, Tensor], list[int]]:
    """Outer gradient, state dict and counts after adapting, `between` and the backward pass."""
    torch.manual_seed(1), random.seed(1), numpy.random.seed(1)
    start = fast_of(net)
    parts = [data(), data(1)] if parts is None else parts
    fast = adapt(
        loss, start, parts, steps=STEPS, rule=more.pop("rule", SGD()), rates=0.3, unroll=unroll, **more
    ).weights
    between()
    total = torch.stack([w.sin().sum() for w in fast.values()]).sum()
    found = torch.autograd.grad(total, list(start.values()))
    ends = [int(torch.randint(2**31, ())), random.randrange(2**31), int(numpy.random.randint(2**31))]
    counts = [vars(part).get("calls", 0) for part in net.modules()]
    return list(found), {name: value.clone() for name, value in net.state_dict().items()}, ends + counts


def agree(make: Callable[[], nn.Module], loss_of: Callable[[nn.Module], Any], **how: Any) -> None:
    """Recomputing ends where the stored graph does: gradients, every entry of the state, every generator."""
    between = how.pop("between", lambda net: None)
    torch.manual_seed(0)
    net = make()
    nets = [deepcopy(net) for _ in range(4)]
    expected = outcome(nets[0], loss_of(nets[0]), Unroll.stored, lambda: between(nets[0]), **how)
    assert any(g.abs().max() > 1e-6 for g in expected[0])
    for own, more in zip(nets[1:], ({}, {"snapshots": Snapshots.host}, {"keep": 1}), strict=True):
        found = outcome(own, loss_of(own), Unroll.recompute, lambda own=own: between(own), **how, **more)  # type: ignore[misc]
        torch.testing.assert_close(found[0], expected[0], **CLOSE)
        assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
        assert found[2] == expected[2]


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_that_change_as_they_run_are_rebuilt_as_they_were(kind: str) -> None:
    agree(NETWORKS[kind], lambda net: lambda w, x: plain(net, w, x))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_the_loss_calls_without_fast_weights_is_rebuilt_as_it_was_too(kind: str) -> None:
    """Inputs are the weights here."""
    found, make = [], NETWORKS[kind]
    for unroll in (Unroll.stored, Unroll.recompute):
        torch.manual_seed(0)
        net = make().requires_grad_(False)
        x = data().requires_grad_()
        loss = lambda w, _, net=net: net(w["x"]).sin().square().mean()  # noqa: E731
        fast = adapt(loss, {"x": x}, steps=STEPS, rule=SGD(), rates=0.3, unroll=unroll).weights["x"]
        net.eval()
        found.append([*torch.autograd.grad(fast.sin().sum(), [x]), *net.state_dict().values()])
    torch.testing.assert_close(found[1][0], found[0][0], **CLOSE)
    assert all(map(torch.equal, found[1][1:], found[0][1:]))


@pytest.mark.parametrize("kind", ["dropout", "batch norm", "spectral norm", "all"])
def test_a_network_that_is_switched_or_written_to_in_between_is_rebuilt_as_it_was(kind: str) -> None:
    def between(net: nn.Module) -> None:
        net.eval()
        for part in net.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.9
            for buffer in part.buffers(recurse=False):
                buffer.data.add_(1)  # the stored graph has saved it

    agree(NETWORKS[kind], lambda net: lambda w, x: plain(net, w, x), between=between)


def test_buffers_given_beside_the_weights_of_a_stack_are_put_back_and_not_written_twice() -> None:
    net, x = network(nn.BatchNorm1d(4)), torch.stack([data(), data(1)])
    found = []
    for unroll in (Unroll.stored, Unroll.recompute):
        buffers = stack_of([buffers_of(net)] * 2)

        def one(w: Weights, b: Weights, x: Tensor) -> Tensor:
            return call(net, {**w, **b}, x).sin().square().mean()

        def losses(w: Weights, x: Tensor, buffers: Weights = buffers) -> Tensor:
            of_tasks: Tensor = torch.func.vmap(lambda w, b, x: one(w, b, x))(w, buffers, x)
            return of_tasks

        start = fast_of(net)
        fast = adapt(losses, stack(start, 2), [x], steps=STEPS, rule=AdamW(eps=1e-2), rates=0.3, unroll=unroll).weights
        gradients = torch.autograd.grad(fast["0.weight"].sin().sum(), [start["0.weight"]])
        found.append([*gradients, *buffers.values()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-13)
    assert found[0][-1].tolist() == [STEPS, STEPS]
    assert all(value.eq(0).all() for name, value in net.named_buffers() if "mean" in name)


class Noisy:
    """A loss that holds generators of its own."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.own, self.python = torch.Generator().manual_seed(3), random.Random(3)
        self.numpy = numpy.random.default_rng(3)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        noise = torch.rand((), generator=self.own) + self.python.random() + self.numpy.random()
        return plain(self.net, weights, x) * noise


@pytest.mark.parametrize("kind", ["random", "numpy", "own"])
def test_random_numbers_of_every_generator_within_reach_are_drawn_again(kind: str) -> None:
    draws = {"random": random.random, "numpy": lambda: float(numpy.random.rand())}
    if kind == "own":
        agree(NETWORKS["dropout"], Noisy)
    else:
        agree(NETWORKS["dropout"], lambda net: lambda w, x: plain(net, w, x) * (0.5 + draws[kind]()))


SETTING: ContextVar[float] = ContextVar("setting", default=1.0)


def test_autocast_and_other_switches_of_the_forward_pass_hold_in_the_rebuilt_steps_too() -> None:
    net = network()
    loss = lambda w, x: plain(net, w, x) * torch.tensor(1 / 3) * SETTING.get()  # noqa: E731

    def run(unroll: Unroll, surround: Any) -> list[Tensor]:
        start = {name: w.detach().float().requires_grad_() for name, w in fast_of(net).items()}
        with surround():
            parts = [data().float()]
            fast = adapt(loss, start, parts, steps=STEPS, rule=SGD(), rates=0.3, unroll=unroll).weights
        total = torch.stack([w.sin().sum() for w in fast.values()]).sum()
        return list(torch.autograd.grad(total, list(start.values())))

    class Switched:
        def __enter__(self) -> None:
            self.autocast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
            self.autocast.__enter__()
            torch.set_default_dtype(torch.double)
            self.token = SETTING.set(3.0)

        def __exit__(self, *_: Any) -> None:
            torch.set_default_dtype(torch.float32)
            SETTING.reset(self.token)
            self.autocast.__exit__(None, None, None)

    expected = run(Unroll.stored, Switched)
    torch.testing.assert_close(run(Unroll.recompute, Switched), expected, rtol=1e-6, atol=1e-8)
    assert torch.get_default_dtype() is torch.float32 and not torch.is_autocast_enabled("cpu") and SETTING.get() == 1.0
    assert not torch.allclose(expected[0], run(Unroll.stored, nullcontext)[0], rtol=1e-3)


def hidden() -> Iterator[float]:
    while True:
        yield 1.0 + random.SystemRandom().random()


def add(x: Tensor, what: float) -> None:
    x.add_(what)


def refused(loss: Any, between: Callable[[], None] = lambda: None, match: str = "", **how: Any) -> None:
    w = torch.ones(3, dtype=torch.double, requires_grad=True)
    how = {"parts": [None], "rule": SGD(), "rates": 0.1, "steps": STEPS} | how
    fast = adapt(loss, {"w": w}, unroll=Unroll.recompute, **how).weights
    between()
    with pytest.raises(UserError, match=match):
        fast["w"].sum().backward()
    assert w.grad is None


def test_what_the_loss_reads_and_is_another_in_the_backward_pass_is_an_error_that_names_the_step() -> None:
    scale, x = [1.0], torch.ones(3, dtype=torch.double)
    cubes = lambda w, _: scale[0] * w["w"].pow(3).sum()  # noqa: E731
    number = r"[\d.]+"
    step = rf"^inner\.unroll=recompute: inner step 0 was rebuilt as another one than was taken: its loss was {number} "
    refused(cubes, lambda: scale.__setitem__(0, 1.5), step + rf"and is {number} now; usual causes: data, .* or use ")
    refused(lambda w, _: (x * w["w"].pow(3)).sum(), lambda: add(x, 0.1), step)
    refused(lambda w, x: (x * w["w"].pow(3)).sum(), lambda: add(x, 0.1), step, parts=[x])
    stream = iter(range(1, 100))
    refused(lambda w, x: x * w["w"].pow(3).sum(), match=step, parts=lambda step: [next(stream)])
    noise = hidden()
    refused(lambda w, _: next(noise) * w["w"].pow(3).sum(), match=step)
    step = "inner step 1 was"  # the one whose data changed
    seen = [torch.full((3,), 2.0 + i, dtype=torch.double) for i in range(STEPS)]
    pick = lambda step: [seen[step]]  # noqa: E731
    refused(lambda w, x: (x * w["w"].pow(3)).sum(), lambda: add(seen[1], 0.4), step, parts=pick)


def test_a_difference_in_the_gradient_alone_is_an_error_too() -> None:
    slope = [1.0]
    loss = lambda w, _: (w["w"].pow(3) + slope[0] * (w["w"] - w["w"].detach())).sum()  # noqa: E731
    refused(loss, lambda: slope.__setitem__(0, 2.0), "step 0 .* its gradient differs by 0.[0-9]+ of its size, its loss")


def test_a_projection_that_draws_is_an_error() -> None:
    noise = hidden()
    refused(
        lambda w, _: w["w"].pow(3).sum(),
        match="^inner.unroll=recompute: the projection gives other weights when it is played again",
        project=lambda w: {"w": w["w"] * next(noise)},
        steps=1,
    )


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e-9])
def test_losses_that_are_nothing_or_no_number_pass(value: float) -> None:
    w = torch.ones(3, dtype=torch.double, requires_grad=True)
    fast = adapt(
        lambda w, _: value * w["w"].pow(3).sum(), {"w": w}, steps=2, rule=SGD(), rates=0.1, unroll=Unroll.recompute
    )
    fast.weights["w"].sum().backward()
    assert w.grad is not None


def test_the_graph_of_an_outer_loss_that_saved_a_buffer_survives_the_rebuilt_steps() -> None:
    net = network(nn.BatchNorm1d(4))
    start = fast_of(net)
    fast = adapt(
        lambda w, x: plain(net, w, x), start, [data()], steps=2, rule=SGD(), rates=0.1, unroll=Unroll.recompute
    )
    net.eval()
    first = plain(net, fast.weights, data(2))
    torch.autograd.grad(plain(net, fast.weights, data(3)) + first, list(start.values()), retain_graph=False)


def test_a_guard_waits_for_the_device_once_a_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
        kept = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, kept=kept, name=name: waits.append(name) or kept(self))
    counts = []
    for steps in (2, 6):
        w = torch.ones(3, dtype=torch.double, requires_grad=True)
        fast = adapt(
            lambda w, _: w["w"].pow(3).sum(), {"w": w}, steps=steps, rule=SGD(), rates=0.01, unroll=Unroll.recompute
        )
        waits.clear()
        fast.weights["w"].sum().backward()
        counts.append(len(waits))
    assert counts[0] == counts[1] <= 2  # the rates, and the guard


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute, Unroll.none])
@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_that_can_be_gone_through_once_are_refused(unroll: Unroll, wrapped: bool) -> None:
    w = torch.ones(3, requires_grad=True)
    for parts, kind in (
        ((x for x in [1.0, 2.0]), "generator"),
        (zip([1.0]), "zip"),
        ({"x": 1.0}, "dict"),
        ({1.0}, "set"),
    ):
        given: Any = (lambda _, parts=parts: parts) if wrapped else parts
        with pytest.raises(UserError, match=f"^parts={kind}: every step goes through the micro-batches again, so give"):
            adapt(lambda w, _: w["w"].sum(), {"w": w}, given, steps=2, rule=SGD(), rates=0.1, unroll=unroll)
