"""`inner.unroll=auto`: the fastest exact unroll that fits, by a footprint made by hand."""

import logging

import pytest
import torch

from common.engine import plan
from common.engine.footprint import Footprint
from common.engine.plan import budget_of, choose
from common.engine.settings import Snapshots, Unroll

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
