"""Cells, fits and comparisons of the bench, its command, and numbers measured before (fact sheet, section 2.4)."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from common.errors import UserError
from common.run.schema import RuntimeConfig, to_typed
from fal.theorem import tables
from fal.theorem.cells import Cell, Values, measure, points_of
from fal.theorem.config import FederatedConfig, LocalRate, NetworkConfig, ProblemConfig
from fal.theorem.figures import FIGURES
from fal.theory import study
from fal.theory_config import ExponentConfig, FitConfig, ReferenceConfig, TheoryConfig, cells_of

CONF = Path(__file__).parents[3] / "conf" / "fal" / "theory"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def law(exponents: list[float], xs: list[float]) -> list[Cell]:
    """Cells whose seeds follow y = 3 x^p with a p each."""
    return [Cell({"x": x}, {"x": [x] * len(exponents), "y": [3 * x**p for p in exponents]}) for x in xs]


def test_a_fit_finds_the_exponent_and_its_interval_over_seeds() -> None:
    found = tables.fit(law([-1.4, -1.5, -1.6], [0.1, 0.2, 0.4, 0.8]), FitConfig(y="y", x="x"), 0.95)
    assert found.exponent is not None and found.cells == 4
    assert found.exponent.value == pytest.approx(-1.5)
    assert found.exponent.high - found.exponent.value == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    exact = tables.fit(law([2.0, 2.0], [1.0, 2.0, 5.0]), FitConfig(y="y", x="x"), 0.95)
    assert exact.residual == pytest.approx(0, abs=1e-12)


def test_a_fit_leaves_out_cells_without_a_value_and_says_when_too_few_are_left() -> None:
    cells = law([1.0, 1.0], [0.0, 1.0, 2.0])
    cells.append(Cell({}, {"x": [9.0, 9.0], "y": [None, 1.0]}))
    assert tables.fit(cells, FitConfig(y="y", x="x"), 0.95).cells == 2  # x = 0 has no logarithm
    assert tables.fit(cells[1:2], FitConfig(y="y", x="x"), 0.95).exponent is None
    told = tables.summary([tables.fit(cells[1:2], FitConfig(y="y", x="x"), 0.95)], [])
    assert told == ["y ~ x^p: no fit, 1 cell(s) have both"]
    linear = [Cell({}, {"x": [x], "y": [math.exp(2 * x)]}) for x in (0.0, 0.1, 0.3)]
    found = tables.fit(linear, FitConfig(y="y", x="x", log_x=False), 0.95).exponent
    assert found is not None and found.value == pytest.approx(2)


def test_an_exponent_of_some_cells_and_on_a_key_that_cells_change() -> None:
    cells = [
        Cell({"federated.local_rate": rule, "federated.local_steps": k}, {"drift": [2.0 * k**p, 3.0 * k**p]})
        for rule, p in (("paper", 0.0), ("width", 1.0)) for k in (1, 5, 20)
    ]  # fmt: skip
    where = [{"federated.local_rate": rule} for rule in ("paper", "width")]
    exponents = [ExponentConfig("drift", "local_steps", predicted=0.0, where=each) for each in where]
    flat, steep = found = tables.fits_of(cells, TheoryConfig(exponents=exponents))
    assert flat.exponent is not None and steep.exponent is not None and (flat.cells, steep.cells) == (3, 3)
    assert (flat.exponent.value, steep.exponent.value) == pytest.approx((0, 1))
    assert {each.name for each in found} == {
        f"exponent_drift_on_local_steps_local_rate_{rule}" for rule in ("paper", "width")
    }
    told = tables.summary(found, [], "As the sheet says.")
    assert told[1].startswith("drift ~ local_steps^p (local_rate=width): p = 1.000") and told[2] == "As the sheet says."


def test_losses_at_equal_e_t_lie_beside_each_other() -> None:
    config = TheoryConfig(moments=[50, 200], federated=FederatedConfig(rounds=400))
    values: list[Values] = [
        {f"robust_at_{n}": [r] for n, r in ((50, a), (200, b))} for a, b in ((0.9, 0.8), (0.7, 0.6))
    ]
    cells = [Cell({"federated.step": s}, v | {"robust": [0.5]}) for s, v in zip((0.8, 3.2), values, strict=True)]
    tables.add_times(cells, config)
    assert cells[0].values["robust_at_time_160"] == [0.8] and cells[1].values["robust_at_time_160"] == [0.7]
    assert cells[0].values["robust_at_time_320"] == [0.5]


def test_comparisons_say_how_far_off_a_cell_is() -> None:
    cells = law([1.0], [1.0, 2.0])
    near, far, absent = (
        tables.compared(cells, ReferenceConfig({"x": x}, "y", value), 0.95)
        for x, value in ((1.0, 3.2), (2.0, 5.0), (7.0, 1.0))
    )
    assert near.holds and near.deviation == pytest.approx(-0.0625)
    assert not far.holds and not absent.holds and absent.deviation is None
    told = tables.summary([], [near, far, absent])
    assert "within 10 %" in told[0] and "OUTSIDE" in told[1] and "not reached" in told[2]


def test_cells_are_every_combination() -> None:
    config = TheoryConfig(
        cells=[{"network.width": 8}, {"network.width": 16, "federated.local_rate": "width"}],
        grid={"problem.rho": [0.0, 0.1], "adversary.name": ["none", "exact"]},
    )
    made = cells_of(config)
    assert len(made) == 8 and {each.network.width for _, each in made} == {8, 16}
    assert made[-1][1].federated.local_rate is LocalRate.width
    assert [each for _, each in cells_of(TheoryConfig())] == [TheoryConfig()]


@pytest.mark.parametrize(
    "grid, message",
    [
        ({"network.widht": [8]}, "network.widht=8"),
        ({"network.width": ["wide"]}, "network.width=wide"),
        ({"problem.rho": [-1.0]}, "problem.rho=-1.0"),
        ({"moments": [[7]]}, "multiples of 5 up to 400"),
    ],
)
def test_a_mistaken_cell_is_named(grid: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells_of(TheoryConfig(grid=grid))


def test_balls_that_meet_are_refused_with_clients() -> None:
    with pytest.raises(UserError, match=r"problem.rho=0.4: points 0 \(client 0\) and 1 \(client 0\)"):
        points_of(ProblemConfig(rho=0.4))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_table_of_valid_cells(name: str) -> None:
    importlib.import_module("fal.theory")
    with initialize_config_module("conf.fal.theory", version_base="1.3"):
        config = to_typed(compose("config", overrides=[f"+experiment={name}"]), TheoryConfig)
    assert config.experiment == name and config.title and set(config.figures) <= set(FIGURES)
    changes = cells_of(config)
    assert len({json.dumps(change) for change, _ in changes}) == len(changes)
    if config.static:
        return
    for _, each in changes:
        points_of(each.problem)
    for where in [each.where for each in config.references] + [each.where for each in config.exponents]:
        assert any(all(c.get(k) == v for k, v in where.items()) for c, _ in changes), where


def test_the_command_leaves_a_run_folder(tmp_path: Path) -> None:
    config = TheoryConfig(
        experiment="tiny", title="Tiny", seeds=2, comparator_steps=10, network=NetworkConfig(width=32),
        federated=FederatedConfig(rounds=10), grid={"federated.step": [0.8, 3.2]}, columns=["robust", "rounds_to_0.5"],
        fits=[FitConfig("robust", "time")], figures=["regret", "flips", "certified"], runtime=RuntimeConfig(),
    )  # fmt: skip
    results = study(config, tmp_path)
    assert {"robust_step_0.8", "robust_step_3.2", "exponent_robust_on_time"} <= set(results.test)
    assert {path.name for path in (tmp_path / "media").iterdir()} == {"regret.png", "flips.png", "certified.png"}
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(records) == 2 * 2 * 3  # cells, runs, records
    sheet = {"time", "distance_max", "distance_f", "drift", "gap", "gap_linear", "flips", "gradient_gap", "regret"}
    assert sheet <= set(records[-1]) and {"cell", "run", "round", "robust", "clean", "best"} <= set(records[-1])
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("Tiny\n") and "| 0.8 |" in table and "robust ~ time^p" in table
    assert study(config, tmp_path) == results  # finished: not touched again


def test_the_static_table_needs_no_training() -> None:
    cell = measure({}, TheoryConfig(static=True, seeds=2, network=NetworkConfig(width=64)))
    assert len(cell.values["one_sided_gap"]) == 2 and not cell.records


def values_of(seeds: int = 2, **changes: object) -> dict[str, float]:
    """Means over seeds of the reference problem with some keys changed."""
    found = measure({}, cells_of(TheoryConfig(seeds=seeds, comparator_steps=0, cells=[changes]))[0][1]).values
    return {name: float(np.mean(each)) for name, each in found.items() if None not in each}


def test_rounds_of_the_reference_problem() -> None:
    """Section 2.4: 190 rounds to 0.5 without a radius, loss 0.883 after 50 rounds with one, within 10 %."""
    clean = values_of(**{"network.width": 2048, "problem.rho": 0.0, "federated.rounds": 215})
    assert clean["rounds_to_0.5"] == pytest.approx(190, rel=0.1)
    robust = values_of(**{"network.width": 1024, "federated.rounds": 50})
    assert robust["robust"] == pytest.approx(0.883, rel=0.03)
    assert robust["pgd20"] <= robust["exact"] + 1e-9 <= robust["crown"] + 2e-9 <= robust["interval"] + 3e-9
    assert robust["pgd_above"] < 1e-5 and robust["certified_below"] < 1e-9


@pytest.mark.slow
def test_clients_with_one_label_stall_under_the_papers_rule_alone() -> None:
    """K = 5, m = 1024: `paper` ends at least 0.15 above `width` and `measured`, as with K = 20 in the table."""
    one_label = {"problem.one_label": 1.0, "federated.local_steps": 5, "federated.rounds": 200, "federated.every": 20}
    best = {
        rule: values_of(seeds=1, **one_label, **{"federated.local_rate": rule})["best"]
        for rule in ("paper", "width", "measured")
    }
    assert best["paper"] > max(best["width"], best["measured"]) + 0.15
    assert best["measured"] == pytest.approx(best["width"], abs=0.02)


@pytest.mark.slow
def test_gamma_orders_the_rounds_better_than_delta_or_rho() -> None:
    cells = []
    for turn in (0.125, 0.1):
        for rho in (0.0, 0.05, 0.1):
            change = {"problem.turn": turn, "problem.rho": rho, "network.width": 1024, "federated.rounds": 850}
            config = cells_of(TheoryConfig(seeds=1, comparator_steps=0, cells=[change]))[0][1]
            cells.append(measure(change, config))
    fits = {
        x: tables.fit(cells, FitConfig("rounds_to_0.5", x, log_x=x != "rho"), 0.95) for x in ("gamma", "delta", "rho")
    }
    assert fits["gamma"].cells == 6 and fits["gamma"].exponent is not None
    assert fits["gamma"].exponent.value == pytest.approx(-1.5, abs=0.15)
    assert fits["gamma"].residual < min(fits["delta"].residual, fits["rho"].residual) / 2
