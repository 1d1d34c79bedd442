"""A loop of a run's pieces: which batches make a step, when it evaluates, selects, stops and continues."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.outer import Outer
from common.engine.rates import LearnedRates
from common.engine.settings import OuterConfig
from common.run import rate_record
from common.run.batches import Batches
from common.run.results import Selection
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig

WHO = RunIdentity("paper", "experiment", "method", "cpu", 3)
CLOSENESS = Selection("closeness")


class Point(nn.Module):
    """Learns to lie where the numbers that it is given lie; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(2))
        self.given: list[list[int]] = []

    def loss(self, number: int) -> Tensor:
        return (self.place - number).square().sum()


class PowerCut(Exception):
    """The machine is off."""


def train(
    folder: Path,
    scores: Sequence[float] | Callable[[Point], float],
    *,
    total: int = 6,
    accumulation: int = 1,
    patience: int = 0,
    cut_at: int = 0,
    rates: LearnedRates | None = None,
    selection: Selection = CLOSENESS,
    **loop: Any,
) -> tuple[Point, Run]:
    """One run, as a paper's `train.py` has it; `scores` by step, or of the point. `cut_at`: evaluation that fails."""
    point, number = Point(), 0
    outer = Outer(OuterConfig(lr=0.1, warmup=0.0, batch_problems=2, accumulation=accumulation), point, rates, total)
    batches = Batches(list(range(10)), 2, seed=3)
    settings = LoopConfig(**{"evaluate_every": 1, "log_every": 1, "save_every": 1, **loop})

    def evaluate(run: Run) -> float:
        nonlocal number
        number += 1
        if number == cut_at:
            raise PowerCut
        score = scores(point) if callable(scores) else scores[run.step]
        run.log(run.step, "dev", **{run.selection.metric: score})
        rate_record.note(run.folder, run.step, rates)
        return score

    with Run(folder, {}, RuntimeConfig(device=Device.cpu), TrackerConfig(), settings, WHO, selection, patience) as run:
        run.track("model", point)
        run.track("outer", outer)
        if run.restore() == 0:
            evaluate(run)
        for step in run.steps(total):
            outer_loss = 0.0
            for batch in batches.of(step, accumulation):
                point.given.append(batch)
                for item in batch:
                    outer_loss += outer.accumulate(point.loss(item))
            norm = outer.step()
            if run.due(settings.log_every):
                shown = {**rate_record.summary(rates), **run.cost}
                run.log(step, "train", outer_loss=outer_loss, grad_norm=norm, **shown)
            if run.due(settings.evaluate_every):
                run.select(evaluate(run))
            run.save_if_due(step)
        run.restore_best("model")
    return point, run


def records(folder: Path, split: str) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record for record in found if record["split"] == split]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_step_takes_the_next_batches_and_sums_their_gradients(tmp_path: Path, accumulation: int) -> None:
    point, _ = train(tmp_path, lambda _: 0.5, total=4, accumulation=accumulation)
    batches = Batches(list(range(10)), 2, seed=3)
    assert point.given == [batches[number] for number in range(4 * accumulation)]
    by_hand = nn.Parameter(torch.zeros(2))
    first = [number for part in range(accumulation) for number in batches[part]]
    loss = torch.stack([(by_hand - number).square().sum() for number in first]).sum()
    assert records(tmp_path, "train")[0]["train/outer_loss"] == pytest.approx(loss.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, [by_hand])
    norm = gradient.norm().item()
    assert records(tmp_path, "train")[0]["train/grad_norm"] == pytest.approx(norm, rel=1e-6)


def test_dev_is_scored_before_the_first_step_then_when_due_and_at_the_end(tmp_path: Path) -> None:
    train(tmp_path, lambda _: 0.5, total=5, evaluate_every=2, log_every=3)
    assert [record["step"] for record in records(tmp_path, "dev")] == [0, 2, 4, 5]
    shown = records(tmp_path, "train")
    assert [record["step"] for record in shown] == [3, 5]
    assert {"train/outer_loss", "train/grad_norm", "cost/seconds_per_step", "cost/peak_memory_bytes"} <= set(shown[0])
    train(tmp_path / "last", lambda _: 0.5, total=5, evaluate_every=0, log_every=0)
    assert [record["step"] for record in records(tmp_path / "last", "dev")] == [0, 5]


def test_the_first_of_the_best_models_is_selected_and_the_untrained_one_never(tmp_path: Path) -> None:
    best, run = train(tmp_path, [9.0, 0.1, 0.7, 0.2, 0.7, 0.3, 0.6])
    assert run.best == {"step": 2, "score": 0.7}
    places: list[Tensor] = []
    train(tmp_path / "watched", lambda point: places.append(point.place.detach().clone()) or 0.0)
    assert torch.equal(best.place, places[2]) and not torch.equal(places[2], places[4])


def test_patience_counts_evaluations_without_improvement(tmp_path: Path) -> None:
    scores = [0.0, 0.1, 0.5, 0.4, 0.5, 0.3, 0.2, 0.9, 1.0]
    _, run = train(tmp_path, scores, total=8, patience=3)
    assert run.step == 5 and run.best == {"step": 2, "score": 0.5}
    _, run = train(tmp_path / "more", scores, total=8, patience=6)
    assert run.step == 8 and run.best == {"step": 8, "score": 1.0}
    _, run = train(tmp_path / "never", scores, total=8)
    assert run.step == 8
    _, run = train(tmp_path / "apart", scores, total=8, patience=1, evaluate_every=2)
    assert [record["step"] for record in records(tmp_path / "apart", "dev")] == [0, 2, 4] and run.step == 4


def test_a_metric_that_should_be_low_selects_and_waits_in_its_direction(tmp_path: Path) -> None:
    scores = [0.0, 9.0, 3.0, 4.0, 3.0, 8.0, 1.0]
    low = Selection("distance", higher_is_better=False)
    _, run = train(tmp_path, scores, selection=low)
    assert run.best == {"step": 6, "score": 1.0}
    _, run = train(tmp_path / "waits", scores, selection=low, patience=3)
    assert run.step == 5 and run.best == {"step": 2, "score": 3.0}
    assert [record["dev/distance"] for record in records(tmp_path / "waits", "dev")] == scores[:6]


@pytest.mark.parametrize("cut_at", [2, 4, 6])
def test_a_cut_run_continues_with_the_numbers_of_the_straight_one(tmp_path: Path, cut_at: int) -> None:
    """Evaluations, batches, selection and patience included; the untrained model is not scored again."""
    scores = [0.0, 0.1, 0.5, 0.4, 0.2, 0.5, 0.3, 0.2, 0.9]
    how: dict[str, Any] = {"total": 8, "patience": 4, "accumulation": 2}
    straight, run = train(tmp_path / "straight", scores, **how)
    assert run.step == 6
    with pytest.raises(PowerCut):
        train(tmp_path / "cut", scores, cut_at=cut_at, **how)
    point, run = train(tmp_path / "cut", scores, **how)
    assert torch.equal(point.place, straight.place) and run.best == {"step": 2, "score": 0.5}
    both = [
        [{k: v for k, v in record.items() if not k.startswith(("time", "cost"))} for record in records(folder, split)]
        for folder in (tmp_path / "straight", tmp_path / "cut")
        for split in ("dev", "train")
    ]
    assert both[:2] == both[2:] and both[0][0]["dev/closeness"] == 0.0
    straight_batches = [Batches(list(range(10)), 2, seed=3)[number] for number in range(12)]
    assert point.given == straight_batches[2 * (cut_at - 2) :]


def test_inner_rates_are_noted_at_every_evaluation(tmp_path: Path) -> None:
    rates = LearnedRates(["a.weight", "b.weight"], steps=2, start=0.1)
    train(tmp_path, lambda _: 0.5, total=4, evaluate_every=2, rates=rates)
    record = rate_record.read(tmp_path)
    assert record is not None and [list(map(list, record.at(step))) for step in (0, 2, 4)]
    assert {"rates/min", "rates/median", "rates/max", "rates/negative_share"} <= set(records(tmp_path, "train")[0])
