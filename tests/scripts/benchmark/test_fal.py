"""FAL's benchmark compares what does the same: in float64 the loops give our round's weights, stacked or one by one."""

import pytest
import torch

from scripts.benchmark.case_results import Result
from scripts.benchmark.fal import main
from scripts.benchmark.fal_case import Bench, choice
from scripts.benchmark.fal_groups import CHOICE, COMPILED, LEAN, LOOP, PLAN, STACK, USUAL, VMAP, Case, groups
from scripts.benchmark.fal_notes import choice_lines, library_lines, round_lines
from scripts.benchmark.running import MISSED, AnyCase


@pytest.mark.parametrize("model", ["mlp_64", "cnn_106k_group", "cnn_106k_batch"])
def test_loops_and_our_rounds_are_one(model: str) -> None:
    benches = {engine: Bench(Case(engine, model=model, batch=3, clients=4), torch.float64) for engine in (LOOP, STACK)}
    lean = benches[LOOP].run(LEAN)
    found = {engine: bench.run(engine) for engine, bench in benches.items()}
    found |= {engine: benches[STACK].run(engine) for engine in (USUAL, VMAP)}
    for weights in found.values():
        assert benches[LOOP].apart(weights, lean) < 1e-12
    assert benches[LOOP].apart(benches[LOOP].start[0], lean) > 1e-3


def test_a_choice_that_is_slower_than_the_lean_loop_is_missed() -> None:
    found = choice(Case(PLAN, CHOICE, "mlp_64", 3, clients=2, steps=1, repeats=2))
    assert found["stacked"] and len(found["seconds"]) == len(found["beside"]) == len(found["other"]) == 2

    def lines(seconds: float) -> str:
        result = Result(seconds=(seconds,) * 3, beside=(1.0,) * 3, other=(0.9, 0.8, 3.0), stacked=True)
        return choice_lines(["mlp_64, batch 3"], 0.95, {"mlp_64, batch 3": result})[2]

    assert lines(0.5) == "| mlp_64, batch 3 | a stack | 2.00 | 0.90 | >= 0.95: met |"
    assert MISSED in lines(1.1)


def test_a_factor_below_what_is_wanted_is_said_to_be_missed() -> None:
    labels = {10: {engine: engine for engine in (USUAL, LEAN, "plan")}}

    def lines(seconds: float) -> str:
        took = {USUAL: 2.0, LEAN: 1.0, "plan": seconds}
        found = {name: Result(seconds=(own,), beside=(1.0,)) for name, own in took.items()}
        return "\n".join(round_lines(labels, {10: (3.9, 2.3)}, 32, found))

    assert MISSED not in lines(0.4) and ">= 2.30: met" in lines(0.4)
    assert MISSED in lines(0.6)


@pytest.mark.parametrize(("seconds", "words", "status"), [(0.2, ["--check"], 0), (0.5, ["--check"], 1), (0.5, [], 0)])
def test_check_ends_with_1_below_a_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, words: list[str], status: int
) -> None:
    def run_case(case: AnyCase) -> Result:
        engine = case.engine if isinstance(case, Case) else ""
        took = {USUAL: 1.0, LEAN: 0.7}.get(engine, seconds)
        return Result(seconds=(took,), beside=(0.7,))

    monkeypatch.setattr("scripts.benchmark.running.run_case", run_case)
    found = 0
    try:
        main(["cnn_9k", *words])
    except SystemExit as ended:
        found = int(ended.code or 0)
    said = capsys.readouterr()
    assert found == status
    assert ("lean >= 3.20: met" in said.out) == (seconds == 0.2)
    assert ("lean >= 3.20: missed" in said.err) == bool(status)


def test_a_library_has_a_target_at_its_largest_size() -> None:
    labels = {10: ("flower, few", "ours, few"), 100: ("flower", "ours")}
    found = {"flower, few": 1.0, "ours, few": 0.1, "flower": 60.0, "ours": 1.0}
    results = {name: Result(seconds=(took,), difference=1e-7) for name, took in found.items()}
    few, _, many, _ = library_lines(labels, {10: 0.0, 100: 50.0}, results)
    assert "ours is 10.0 times as fast, 100 clients a second and 10.0" in few and "target" not in few
    assert "target >= 50.00: met" in many and "at most 1.0e-07" in many
    assert MISSED in library_lines(labels, {10: 0.0, 100: 70.0}, results)[2]
    assert (
        "no result of flower"
        in library_lines(labels, {10: 0.0, 100: 50.0}, {**results, "flower": Result(error="x")})[2]
    )


def test_every_group_has_its_reference_and_a_compiled_round_where_it_is_not_too_large() -> None:
    for group in groups():
        assert group.rows[0].against == group.rows[0].label
    assert sum(COMPILED in row.label for group in groups() for row in group.rows) == 14
