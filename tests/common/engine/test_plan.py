"""`inner.unroll=auto`: the fastest exact unroll that fits, by a footprint made by hand; and whether stacking pays."""

import logging
from collections.abc import Callable

import pytest
import torch

from common.engine import plan
from common.engine.derivatives import InnerLoss
from common.engine.footprint import Footprint
from common.engine.plan import budget_of, choose, chunk_of, stacking_pays
from common.engine.settings import Snapshots, Unroll
from common.engine.weights import Weights, buffers_of, call, select

STEPS = 4
COST = Footprint(
    fast=10, buffers=0, others=0, first=50, graph=100, making=120, back=60, product=140, outer=30
)  # a stored step: 100 + 2 * 10


def test_the_peaks_are_those_worked_out_by_hand() -> None:
    assert COST.peak(Unroll.stored, STEPS, 0) == 4 * 120 + 10 + 60
    assert COST.peak(Unroll.recompute, STEPS, 0) == 4 * 10 + 4 * 10 + 140
    assert COST.peak(Unroll.recompute, STEPS, 2) == (2 * 10 + 10) + 2 * 120 + 10 + 60
    assert COST.peak(Unroll.recompute, STEPS, 0, Snapshots.host) == 5 * 10 + 140
    assert COST.peak(Unroll.truncate, STEPS, 1) == 10 + 120 + 10 + 60
    assert COST.peak(Unroll.first_order, STEPS, 0) == 4 * 2 * 10 + 30
    assert COST.peak(Unroll.none, STEPS, 0) == 10 + 50


def test_the_fastest_unroll_that_fits_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    stored = COST.peak(Unroll.stored, STEPS, 0)
    peaks = {keep: COST.peak(Unroll.recompute, STEPS, keep) for keep in range(STEPS)}
    assert sorted(peaks.values()) == list(peaks.values()) and peaks[3] < stored, "every stored step takes memory"
    with caplog.at_level(logging.WARNING):
        assert choose(COST, STEPS, stored) == (Unroll.stored, 0)
        assert choose(COST, STEPS, stored - 1) == (Unroll.recompute, 3)
        for keep, peak in peaks.items():
            assert choose(COST, STEPS, peak) == (Unroll.recompute, keep)
        assert not caplog.records
        assert choose(COST, STEPS, peaks[0] - 1) == (Unroll.recompute, 0)
    (record,) = caplog.records
    assert "even recompute with keep=0 needs" in record.getMessage() and "inner.micro_batch=1" in record.getMessage()


def test_snapshots_on_the_host_leave_room_for_stored_steps() -> None:
    budget = COST.peak(Unroll.recompute, STEPS, 2, Snapshots.host)
    assert choose(COST, STEPS, budget, Snapshots.host) == (Unroll.recompute, 2)
    assert choose(COST, STEPS, budget) == (Unroll.recompute, 1)


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose(COST, STEPS, 10**9)
    assert caplog.messages == ["inner.unroll=auto: stored, keep=0: 0.00 GB of at most 1.00 GB"]


def test_a_budget_is_what_was_asked_for_or_a_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(plan, "host_memory_bytes", lambda: 1000)
    assert budget_of(1.5, cpu) == 1_500_000_000
    assert budget_of(0.0, cpu) == 600


# ---- stacking, counted by class of operator

CPU = torch.device("cpu")


def product(operations: float) -> tuple[InnerLoss, Weights]:
    """A loss whose gradient takes that many, half of them in [rows, 100] x [100, 1000], and its weights."""
    rows = round(operations / 4 / 100_000)
    x = torch.empty(rows, 100)
    return lambda w, _: (x @ w["w"]).sum(), {"w": torch.empty(100, 1000)}


def convolution(operations: float) -> tuple[InnerLoss, Weights]:
    """The same through a convolution of 3 x 3 over 10 x 10 places, from 10 channels to 50."""
    images = round(operations / 4 / (10 * 50 * 9 * 100))
    x = torch.empty(images, 10, 12, 12)
    return lambda w, _: torch.nn.functional.conv2d(x, w["w"]).sum(), {"w": torch.empty(50, 10, 3, 3)}


@pytest.mark.parametrize(
    ("made", "limit", "shared"),
    [(product, 4e8, False), (product, 2e9, True), (convolution, 4e7, False), (convolution, 2e8, True)],
)
def test_stacking_pays_up_to_the_limit_of_the_operators_class(
    made: Callable[[float], tuple[InnerLoss, Weights]], limit: float, shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert stacking_pays(*made(0.95 * limit), None, CPU, shared=shared)
        assert not caplog.messages
        assert not stacking_pays(*made(1.05 * limit), None, CPU, shared=shared)
    assert caplog.messages[0].startswith("inner.stack=true: problems go one by one, ")
    assert chunk_of(*made(0.95 * limit), None, CPU, tasks=5, shared=shared) == 5
    assert chunk_of(*made(1.05 * limit), None, CPU, tasks=5, shared=shared) == 1


def test_classes_add_up_in_shares_of_their_limits() -> None:
    (a, at), (b, other) = product(0.5e8), convolution(3.8e7)
    weights = {**at, "filters": other["w"]}

    def both(w: Weights, _: object) -> torch.Tensor:
        return a(w, None) + b({"w": w["filters"]}, None)

    assert all(stacking_pays(*each, None, CPU, shared=False) for each in ((a, at), (b, other)))
    assert not stacking_pays(both, weights, None, CPU, shared=False)


@pytest.mark.parametrize(("tasks", "size"), [(1, 1), (5, 5), (10, 10), (11, 6), (12, 6), (25, 9), (100, 10)])
def test_chunks_are_of_nearly_one_size_and_not_above_ten_on_a_cpu(tasks: int, size: int) -> None:
    assert chunk_of(*product(1e6), None, CPU, tasks=tasks, shared=False) == size


def test_nothing_is_run_and_nothing_written_to_while_counting() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = buffers_of(network)
    kept = {name: value.clone() for name, value in own.items()}

    def loss(weights: Weights, x: torch.Tensor) -> torch.Tensor:
        return call(network, weights, x).sum() + call(network, {**weights, **own}, x).sum()

    assert stacking_pays(loss, select(network), torch.rand(2, 1, 8, 8), CPU, shared=False)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in own.items())
