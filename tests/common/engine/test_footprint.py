"""The predicted memory of an outer gradient against what torch really allocates."""

import logging

import pytest
import torch
from torch import Tensor

from common.engine.footprint import Footprint, footprint
from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import AdamW
from common.engine.settings import Unroll
from common.engine.weights import Weights, call, select
from scripts.benchmark.engine_case import Bench, Case
from scripts.benchmark.measuring import allocated_peak, settle

logger = logging.getLogger(__name__)  # measured sizes: pytest --log-cli-level=INFO
TOLERANCE = 0.2
SMALL = {"layers": 2, "width": 64, "heads": 4, "tokens": 32, "rows": 4, "steps": 4, "vocabulary": 256, "tasks": 1}
UNROLLS = [("stored", 0), ("recompute", 0), ("recompute", 2), ("truncate", 1), ("first_order", 0)]
WORK = {"all": {}, "micro-batches": {"micro": 1}, "lora": {"rank": 4}, "lora, micro-batches": {"rank": 4, "micro": 2}}


def bench_of(engine: str, **more: object) -> Bench:
    torch.set_num_threads(1)
    return Bench(Case(engine, **{**SMALL, **more}))  # type: ignore[arg-type]


def predicted(bench: Bench) -> Footprint:
    start, facts, questions = bench.start, bench.facts[0], bench.questions[0]
    parts = facts.split(bench.case.micro or bench.case.rows)
    return footprint(bench.inner, lambda fast: bench.loss(fast, questions), start, parts, bench.rule)


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_the_prediction_is_what_torch_allocates(rule: str, work: str) -> None:
    cost = predicted(bench_of("stored", rule=rule, **WORK[work]))
    for engine, keep in UNROLLS:
        bench = bench_of(engine, rule=rule, keep=keep, **WORK[work])
        run = bench.outer_gradient()
        run()  # what is made once
        settle(bench.learners, "cpu")
        found = allocated_peak(run, "cpu")
        expected = cost.peak(Unroll(engine), bench.case.steps, keep)
        logger.info("%s keep=%d: %.2f MB predicted, %.2f MB allocated", engine, keep, expected / 1e6, found / 1e6)
        assert expected == pytest.approx(found, rel=TOLERANCE), (engine, keep)


@pytest.mark.parametrize(("unroll", "keep"), [(Unroll.stored, 0), (Unroll.recompute, 0), (Unroll.recompute, 1)])
def test_what_learns_without_being_fast_counts(unroll: Unroll, keep: int) -> None:
    bench = bench_of("stored", rule="adamw")
    start = select(bench.network, ["*.mlp.*"])
    also = [w for name, w in bench.network.named_parameters() if name not in start]
    rates, rule = LearnedRates(list(start), steps=4, start=1e-3), AdamW()
    facts, questions = bench.facts[0], bench.questions[0]

    def outer(weights: Weights) -> Tensor:
        return bench.loss(weights, questions)

    def run() -> None:
        how = {"unroll": unroll, "keep": keep, "also": also}
        fast = adapt(bench.inner, start, [facts], steps=4, rule=rule, rates=rates, **how)  # type: ignore[arg-type]
        outer(fast.weights).backward()

    cost = footprint(bench.inner, outer, start, [facts], rule, also)
    assert cost.others == sum(w.nbytes for w in also)
    run()
    bench.network.zero_grad()
    assert cost.peak(unroll, 4, keep) == pytest.approx(allocated_peak(run, "cpu"), rel=TOLERANCE)


def test_nothing_is_changed_by_looking() -> None:
    bench = bench_of("stored", rule="adamw")
    before = {name: w.detach().clone() for name, w in bench.network.named_parameters()}
    seeds = torch.get_rng_state()
    assert predicted(bench) == predicted(bench)
    assert torch.equal(seeds, torch.get_rng_state())
    for name, weight in bench.network.named_parameters():
        assert torch.equal(weight, before[name]) and weight.grad is None


def test_no_running_statistics_change_by_looking() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def loss(weights: Weights, x: Tensor) -> Tensor:
        return call(network, weights, x).sum()

    footprint(loss, lambda w: loss(w, torch.rand(4, 3)), select(network), [torch.rand(4, 3)], AdamW())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
