"""Multi-tensor updates against the rules' own, graphs against the plain loop, bfloat16 against float32, the meter.

What needs a GPU is marked; the Triton kernels run in Triton's interpreter on a CPU where Triton is installed.
"""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.engine.cuda import bf16, graphs, updates, using
from common.engine.cuda.graphs import GraphedDescent
from common.engine.cuda.sizes import MemoryMeter, give_back
from common.engine.derivatives import InnerLoss
from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, Buffers, Momentum, UpdateRule
from common.engine.settings import Kernels, Snapshots, Unroll
from common.engine.unroll.descent import descend
from common.engine.unroll.tape import HostTape, Moves
from common.engine.weights import Weights, call, select
from common.errors import UserError

ROOT = Path(__file__).parents[3]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MIB = 2**20
SHAPES = [(3,), (70, 40), (), (1025,), (0,), (1024,)]  # no block, one, exactly one, and one entry more
RULES: list[UpdateRule] = [
    *(SGD(), SGD(0.1), Momentum(0.9), Momentum(0.5, 0.1), AdamW()),
    *(AdamW(0.5, 0.9, 0.1, 0.3), AdamW(beta1=0.0, weight_decay=0.0), AdamW(floor=0.1, zero_floor=0.2)),
]
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4}  # AdamW's first cotangents are differences of nearly equal numbers


def agree(kernels: Kernels, rule: UpdateRule, dtype: torch.dtype, device: torch.device) -> None:
    """Three steps, and after each one its reverse, by `kernels` and by the rule itself."""
    ours, theirs = updates(device, kernels), updates(device, Kernels.reference)
    draw = torch.Generator().manual_seed(0)

    def random() -> list[Tensor]:
        return [torch.randn(shape, dtype=dtype, generator=draw).to(device) for shape in SHAPES]

    def close(found: list[Tensor], wanted: list[Tensor]) -> None:
        assert all(x.isfinite().all() for x in found)
        torch.testing.assert_close(found, wanted, rtol=CLOSE[dtype], atol=CLOSE[dtype])

    rates = [0.05 * (index + 1) for index in range(len(SHAPES))]
    weights, buffers = random(), [[] for _ in SHAPES]
    for count in (1, 2, 3):
        g = random()
        g[1] = torch.randn(40, 70, dtype=dtype, generator=draw).to(device).t()  # laid out by columns
        g[1][:5], g[1][5] = 0, 1e-30  # AdamW's root is 0; in float32 so is the square of the second
        before, own = copies(weights), [copies(b) for b in buffers]
        ours.advance(rule, before, g, rates, own, count)
        start = copies(weights)
        theirs.advance(rule, weights, g, rates, buffers, count)
        close([*before, *flat(own)], [*weights, *flat(buffers)])

        bars = random()
        moments = [random() for _ in range(rule.buffers)]  # whose cotangents every second tensor has
        state = [[column[i] for column in moments] if i % 2 else [] for i in range(len(SHAPES))]
        results = []
        for way in (ours, theirs):
            given, bar, bars_of = copies(g), copies(bars), [copies(b) for b in state]
            after = [copies(b) for b in buffers]
            found = way.pull(rule, start, given, rates, after, count, bar, bars_of)
            assert [x.shape for x in found] == [torch.Size()] * len(SHAPES)
            assert [len(b) for b in bars_of] == [0 if count == 1 else rule.buffers] * len(SHAPES)
            results.append([*found, *given, *bar, *flat(bars_of)])
        close(*results)


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [x.clone() for x in tensors]


def flat(lists: list[Buffers]) -> list[Tensor]:
    return [x for own in lists for x in own]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rule", RULES)
def test_multi_tensor_updates_are_those_of_the_rule(rule: UpdateRule, dtype: torch.dtype) -> None:
    agree(Kernels.foreach, rule, dtype, CPU)


@pytest.mark.cuda
@pytest.mark.parametrize("kernels", [Kernels.foreach, Kernels.fused])
@pytest.mark.parametrize("rule", RULES)
def test_multi_tensor_updates_are_those_of_the_rule_on_a_gpu(rule: UpdateRule, kernels: Kernels) -> None:
    if kernels is Kernels.fused:
        pytest.importorskip("triton", reason="the fused kernels are Triton's, which is not installed")
    agree(kernels, rule, torch.float32, CUDA)


def test_fused_updates_are_those_of_the_rule_in_the_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported whether to compile."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the fused kernels are Triton's, which is not installed (a CUDA build of torch brings it)")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, __file__], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_choice_of_kernels_holds_in_its_block_and_in_all_threads() -> None:
    """As autograd's own threads run the backward pass on CUDA."""
    seen = []
    with using(Kernels.foreach):
        thread = threading.Thread(target=lambda: seen.append(updates(CPU)))
        thread.start()
        thread.join()
        assert updates(CPU) is updates(CPU, Kernels.foreach) is seen[0]
        with pytest.raises(ZeroDivisionError), using(Kernels.reference):
            assert updates(CUDA) is updates(CPU, Kernels.reference)
            raise ZeroDivisionError
        assert updates(CPU) is updates(CPU, Kernels.foreach)
        assert updates(CUDA, Kernels.auto) is updates(CPU, Kernels.foreach)
    assert updates(CPU) is updates(CPU, Kernels.reference) is updates(CPU, Kernels.auto)
    with using(Kernels.fused):
        assert updates(CPU) is updates(CPU, Kernels.reference), "a run that trained with them is evaluated on a CPU"


def test_updates_are_picked_by_the_device_and_groups_are_bounded() -> None:
    assert updates(CPU).groups([torch.empty(3)] * 3) == [[0], [1], [2]]
    assert updates(CUDA).advance is updates(CPU, Kernels.foreach).advance is not updates(CPU).advance
    sizes = [2**23, 2**23, 1, 2**25, 5]
    tensors = [torch.empty(size, device="meta") for size in sizes]
    assert updates(CUDA).groups(tensors) == [[0, 1], [2], [3], [4]]
    assert updates(CUDA).groups([]) == []


class SignOfSGD(SGD):
    """Another algorithm in a subclass, as users write it."""

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        w.add_(g.sign(), alpha=-rate)

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        rate_bar = -(bar * g.sign()).sum()
        g.zero_()
        return rate_bar


class FlatAdamW(AdamW):
    """A subclass with buffers that its own step fills."""

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        super().advance(w, g.clamp(-1, 1), rate, buffers, count)


@pytest.mark.parametrize("rule", [SignOfSGD(), FlatAdamW()], ids=repr)
def test_a_subclass_is_no_plain_rule_to_multi_tensor_updates(rule: UpdateRule) -> None:
    agree(Kernels.foreach, rule, torch.float64, CPU)


def test_a_sign_sgd_moves_by_its_rate_whatever_walks_over_the_tensors() -> None:
    ours, w, g = updates(CPU, Kernels.foreach), [torch.zeros(2)], [torch.tensor([5.0, -3.0])]
    ours.advance(SignOfSGD(), w, g, [0.1], [[]], 1)
    assert torch.equal(w[0], torch.tensor([-0.1, 0.1]))
    (rate_bar,) = ours.pull(SignOfSGD(), w, g, [0.1], [[]], 1, [torch.tensor([1.0, 2.0])], [[]])
    assert rate_bar == 1.0 and g[0].eq(0).all()


class Problem:
    """A small network, its inner loss over (inputs, targets) and what is asked afterwards."""

    def __init__(self, device: torch.device = CPU) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 4)).to(device)
        self.start = select(self.network)
        self.rates = LearnedRates(list(self.start), steps=3, start=0.02).to(device)
        self.data = [(torch.randn(8, 16).to(device), torch.randn(8, 4).to(device)) for _ in range(2)]
        self.question = torch.randn(8, 16).to(device), torch.randn(8, 4).to(device)

    def loss(self, weights: Weights, part: tuple[Tensor, Tensor]) -> Tensor:
        return (call(self.network, weights, part[0]).float() - part[1]).square().mean()

    def in_bf16(self, weights: Weights, part: tuple[Tensor, Tensor]) -> Tensor:
        with bf16(part[0].device):
            return self.loss(weights, part)

    def outer_gradient(self, loss: InnerLoss, **how: Any) -> list[Tensor]:
        fast = adapt(loss, self.start, self.data, steps=3, rates=self.rates, **how)
        learners = [*self.start.values(), self.rates.numbers]
        return list(torch.autograd.grad(loss(fast.weights, self.question), learners))


@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW()])
@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute])
def test_the_outer_gradient_is_the_same_with_multi_tensor_updates(
    rule: UpdateRule, unroll: Unroll, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem()
    plain = problem.outer_gradient(problem.loss, rule=rule, unroll=unroll)
    calls = []
    for module in ("common.engine.unroll.descent", "common.engine.unroll.rebuilt", "common.engine.unroll.step"):
        monkeypatch.setattr(
            f"{module}.updates", lambda device, name=module: calls.append(name) or updates(device, Kernels.foreach)
        )
    found = problem.outer_gradient(problem.loss, rule=rule, unroll=unroll)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    assert set(calls) == (
        {"common.engine.unroll.step"}
        if unroll is Unroll.stored
        else {"common.engine.unroll.descent", "common.engine.unroll.rebuilt"}
    )


@pytest.mark.cuda
@pytest.mark.parametrize("rule", [SGD(0.1), Momentum(0.9, 0.1), AdamW()])
@pytest.mark.parametrize("snapshots", Snapshots)
def test_the_outer_gradient_on_a_gpu_is_that_of_the_cpu(rule: UpdateRule, snapshots: Snapshots) -> None:
    here, there = Problem(), Problem(CUDA)
    there.data = [(x.cuda(), y.cuda()) for x, y in here.data]
    there.question = here.question[0].cuda(), here.question[1].cuda()
    wanted = here.outer_gradient(here.loss, rule=rule)
    for unroll in (Unroll.stored, Unroll.recompute):
        found = there.outer_gradient(there.loss, rule=rule, unroll=unroll, snapshots=snapshots)
        torch.testing.assert_close([x.cpu() for x in found], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("rule", [SGD(), AdamW()])
def test_the_host_tape_keeps_the_values_of_its_step_although_its_copies_lag(rule: UpdateRule) -> None:
    w, buffers = [torch.randn(1000, 1000, device=CUDA)], [[]]
    tape = HostTape(Moves(rule, lambda index, step: 0.1), w[0].device)
    seen = []
    for count in (1, 2, 3):
        with torch.cuda.stream(tape.stream):
            torch.cuda._sleep(50_000_000)  # tens of milliseconds
        tape.begin(w, buffers)
        before, g = w[0].clone(), torch.randn_like(w[0])
        tape.record([g])
        rule.advance(w[0], g, 0.1, buffers[0], count)
        seen.append([before, g.clone(), *copies(buffers[0])])
        del g
        torch.full_like(w[0], float("nan"))  # takes the gradient's memory if that is free too early
    for step in (2, 1, 0):
        [before], [g], [after], _ = tape.recall(step, [0])
        torch.testing.assert_close([before, g, *after], seen[step], rtol=1e-6, atol=1e-7)


def by_hand(run: Callable[[], graphs.Found], device: torch.device) -> tuple[graphs.Found, Callable[[], None]]:
    """Stands for `graphs.record` where there is no GPU: runs again, into the same tensors."""
    found = run()

    def again() -> None:
        fast, state, losses = run()
        into = [*found[0].values(), *flat(list(found[1].buffers.values())), *found[2]]
        for mine, new in zip(into, [*fast.values(), *flat(list(state.buffers.values())), *losses], strict=True):
            mine.copy_(new)

    return found, again


def box(weights: Weights) -> Weights:
    return {name: w.clamp(-0.1, 0.1) for name, w in weights.items()}


def check_replays(problem: Problem, monkeypatch: pytest.MonkeyPatch, record: Callable) -> None:
    """Graphed and plain loop side by side, through everything that calls for another recording, and what does not."""
    recorded = []
    monkeypatch.setattr(graphs, "record", lambda *args: recorded.append(1) or record(*args))
    graphed, rule = GraphedDescent(), AdamW()
    kept: list[tuple[graphs.Found, graphs.Found]] = []

    def compare(recordings: int, parts: list[Any] | None = None, **other: Any) -> None:
        given = {"steps": 3, "rule": rule, "rates": problem.rates, **other}
        data = problem.data if parts is None else parts
        kept.append((
            graphed(problem.loss, problem.start, data, **given), descend(problem.loss, problem.start, data, **given)
        ))  # fmt: skip
        assert len(recorded) == recordings
        for found, wanted in kept:  # the earlier results stand, too
            torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[1].buffers, wanted[1].buffers, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[2], wanted[2], rtol=1e-5, atol=1e-6)
            assert found[1].count == wanted[1].count

    compare(1)
    compare(1, [(x * 2, y - 1) for x, y in problem.data])
    with torch.no_grad():
        for w in problem.start.values():
            w.mul_(0.9)
    compare(1)
    compare(2, problem.data[:1])
    compare(3, [(x[:5], y[:5]) for x, y in problem.data])
    compare(4, steps=2)
    compare(5, steps=2, rule=SGD())
    with torch.no_grad():
        problem.rates.numbers.mul_(2)
    compare(6, steps=2, rule=SGD())
    compare(6, steps=2, rule=SGD())

    states = [
        descend(problem.loss, problem.start, problem.data, steps=n, rule=rule, rates=problem.rates)[1] for n in (1, 2)
    ]
    compare(7, state=states[0])
    states[0].buffers["0.weight"][0].add_(1)
    compare(7, state=states[0])
    compare(8, state=states[1])
    compare(9, state=states[1], project=box)
    compare(9, state=states[1], project=box)

    def by_step(step: int) -> list[Any]:
        return [problem.data[step % 2]]

    compare(10, by_step)
    problem.data.reverse()
    compare(10, by_step)


def test_a_graph_is_recorded_again_when_a_replay_could_not_stand_for_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_refuse_elsewhere", lambda tensors: None)
    check_replays(Problem(), monkeypatch, by_hand)


@pytest.mark.cuda
def test_replayed_steps_are_those_of_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    check_replays(Problem(CUDA), monkeypatch, graphs.record)


def test_a_graph_without_a_gpu_is_refused_with_the_way_out() -> None:
    problem = Problem()
    with pytest.raises(
        ValueError, match="on one CUDA device, these are on cpu; move them, or use common.engine.unroll.descent"
    ):
        GraphedDescent()(problem.loss, problem.start, problem.data, steps=1, rule=SGD(), rates=problem.rates)


@pytest.mark.cuda
def test_a_loss_that_waits_for_the_device_cannot_be_recorded() -> None:
    problem = Problem(CUDA)

    def waits(weights: Weights, part: tuple[Tensor, Tensor]) -> Tensor:
        value = problem.loss(weights, part)
        return value * 2 if value.item() > 0 else value

    with pytest.raises(UserError, match="runtime.capture=true: the inner loss cannot be recorded as a CUDA graph"):
        GraphedDescent()(waits, problem.start, problem.data, steps=1, rule=SGD(), rates=problem.rates)
    torch.zeros(3, device=CUDA).sum().item()  # the device is as before


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=pytest.mark.cuda)])
def test_the_meter_sees_what_a_block_held_at_most(device: torch.device) -> None:
    kept = torch.ones(32 * MIB // 4, device=device)  # from before: not the block's
    give_back(device)
    with MemoryMeter(device) as meter:
        held = torch.ones(64 * MIB // 4, device=device)
        del held
        kept.add_(1)
    assert 60 * MIB < meter.peak < 80 * MIB
    give_back(device)
    with pytest.raises(ZeroDivisionError), MemoryMeter(device) as meter:
        kept = torch.ones(16 * MIB // 4, device=device) / (1 // 0)
    assert 14 * MIB < meter.peak < 24 * MIB


@contextmanager
def products() -> Iterator[set[torch.dtype]]:
    """Types in which matrices are multiplied inside the block."""
    seen: set[torch.dtype] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                seen.update(x.dtype for x in args if isinstance(x, Tensor))
            return func(*args, **(kwargs or {}))

    with Watch():
        yield seen


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=pytest.mark.cuda)])
@pytest.mark.parametrize("rule", [SGD(), AdamW(eps=0.1)])  # see `bf16` about a small eps
def test_bf16_multiplies_in_bfloat16_and_learns_in_float32(rule: UpdateRule, device: torch.device) -> None:
    problem = Problem(device)
    how = {"steps": 3, "rule": rule, "rates": problem.rates}
    with products() as seen:
        weights, state, losses = descend(problem.in_bf16, problem.start, problem.data, **how)
    assert seen == {torch.bfloat16}
    assert {x.dtype for x in (*weights.values(), *flat(list(state.buffers.values())), *losses)} == {torch.float32}

    exact = problem.outer_gradient(problem.loss, rule=rule)
    stored = problem.outer_gradient(problem.in_bf16, rule=rule)
    for unroll in (Unroll.stored, Unroll.recompute):
        with products() as seen:
            found = problem.outer_gradient(problem.in_bf16, rule=rule, unroll=unroll)
        assert seen == {torch.bfloat16}
        torch.testing.assert_close(found, stored, rtol=1e-3, atol=1e-4)
        for value, wanted in zip(found, exact, strict=True):
            assert value.dtype is torch.float32 and value.isfinite().all()
            assert (value - wanted).norm() < 0.05 * wanted.norm()


if __name__ == "__main__":  # under TRITON_INTERPRET=1
    for each in [*RULES, SignOfSGD(), FlatAdamW()]:
        agree(Kernels.fused, each, torch.float32, CPU)
    try:
        agree(Kernels.fused, SGD(), torch.float64, CPU)
    except UserError as error:
        assert "float32, not torch.float64; use runtime.kernels=foreach" in str(error)
    else:
        raise AssertionError("float64 was not refused")
