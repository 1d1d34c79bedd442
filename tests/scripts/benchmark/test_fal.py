"""FAL's benchmark compares what does the same: in float64 the loops give our round's weights, stacked or one by one."""

import pytest
import torch

from scripts.benchmark.case_results import Result
from scripts.benchmark.fal_case import Bench
from scripts.benchmark.fal_groups import COMPILED, LEAN, LOOP, STACK, USUAL, Case, groups
from scripts.benchmark.fal_notes import round_lines
from scripts.benchmark.running import MISSED


@pytest.mark.parametrize("model", ["mlp_64", "cnn_106k_group", "cnn_106k_batch"])
def test_loops_and_our_rounds_are_one(model: str) -> None:
    benches = {engine: Bench(Case(engine, model=model, batch=3, clients=4), torch.float64) for engine in (LOOP, STACK)}
    lean = benches[LOOP].run(LEAN)
    found = {engine: bench.run(engine) for engine, bench in benches.items()}
    found[USUAL] = benches[STACK].run(USUAL)
    for weights in found.values():
        assert benches[LOOP].apart(weights, lean) < 1e-12
    assert benches[LOOP].apart(benches[LOOP].start[0], lean) > 1e-3


def test_a_factor_below_what_is_wanted_is_said_to_be_missed() -> None:
    labels = {10: {engine: engine for engine in (USUAL, LEAN, "plan")}}

    def lines(seconds: float) -> str:
        took = {USUAL: 2.0, LEAN: 1.0, "plan": seconds}
        found = {name: Result(seconds=(own,), beside=(1.0,)) for name, own in took.items()}
        return "\n".join(round_lines(labels, {10: (3.9, 2.3)}, 32, found))

    assert MISSED not in lines(0.4) and ">= 2.30: met" in lines(0.4)
    assert MISSED in lines(0.6)


def test_every_group_has_its_reference_and_a_compiled_round_where_it_is_not_too_large() -> None:
    for group in groups():
        assert group.rows[0].against == group.rows[0].label
    assert sum(COMPILED in row.label for group in groups() for row in group.rows) == 14
