"""Studies of run folders: which rate and which budget they choose, and which verdicts they take from tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.tables.budgets import Study, method_of, studies_of
from common.tables.join import Filled, Joined, Verdict
from common.tables.runs import read_runs
from scripts.report.tables import sign
from scripts.tables.grids import render
from scripts.tables.published_tables import grid_of
from tests.common.tables.test_join import filled
from tests.scripts.tables.test_tables import write_run

BUDGETS = (100, 300, 900)


def write_trial(root: Path, method: str, rate: float, dev: Sequence[float], *, seed: int = 0, **more: Any) -> Path:
    """A run of a study: dev at 1, 3 and 9 times 100 steps, and something else on the way."""
    outer = {"lr": rate, "steps": BUDGETS[0], "multiples": [1, 3, 9], "decay": 0.1, "warmup": 0.04}
    folder = write_run(root / "a-study" / f"{rate}-{seed}", method, 20, seed=seed, outer=outer, **more)
    found = [
        (0, "dev", 0.3),
        (100, "branch", dev[0]),
        (200, "dev", 0.35),
        (300, "branch", dev[1]),
        (900, "dev", dev[2]),
    ]
    records = [
        {"step": step, "time": step / 10, "split": split, f"{split}/accuracy": score} for step, split, score in found
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def only_study(root: Path) -> Study:
    (study,) = studies_of(read_runs(root, None, None)[0]).values()
    return study


def study_of(root: Path, **dev: Sequence[float]) -> Study:
    for method, scores in dev.items():
        write_trial(root, method, 0.01, scores)
    return only_study(root)


@pytest.mark.parametrize(
    ("ours", "theirs", "enough"),
    [
        ((0.90, 0.91, 0.90), (0.70, 0.71, 0.70), 100),
        ((0.80, 0.90, 0.91), (0.70, 0.71, 0.70), 300),
        ((0.80, 0.90, 0.93), (0.70, 0.71, 0.70), None),
        ((0.33, 0.33, 0.95), (0.70, 0.71, 0.70), None),
        ((0.90, 0.90, 0.90), (0.90, 0.91, 0.80), None),
    ],
    ids=["at once", "after a while", "not yet", "a plateau that ends late", "another method falls"],
)
def test_a_budget_is_enough_where_nothing_beyond_it_changes_a_method(
    tmp_path: Path, ours: Sequence[float], theirs: Sequence[float], enough: int | None
) -> None:
    study = study_of(tmp_path, reckoning=ours, ft_icr=theirs)
    assert study.enough == enough
    assert study.learning(100) == (enough != 100) and study.learning(900) == (enough is None)


def test_of_several_rates_the_best_at_the_largest_budget_counts(tmp_path: Path) -> None:
    for rate, dev in (
        (0.001, (0.3, 0.6, 0.8)),
        (0.003, (0.7, 0.8, 0.9)),
        (0.01, (0.8, 0.85, 0.9)),
        (0.03, (0.9, 0.9, 0.7)),
    ):
        write_trial(tmp_path, "reckoning", rate, dev)
    write_trial(tmp_path, "reckoning", 0.01, (1.0, 1.0, 1.0), seed=1)
    study = only_study(tmp_path)
    (method,) = study.trials
    assert [trial.rate for trial in study.trials[method]] == [0.001, 0.003, 0.01, 0.03]
    best = study.best(method)
    assert best.rate == 0.01 and best.run.results.seed == 0, "of equal ones that which is better before"
    assert [(point.steps, point.seconds) for point in best.points] == [(100, 10.0), (300, 30.0), (900, 90.0)]
    assert [point.score for point in best.points] == pytest.approx([80.0, 85.0, 90.0])
    assert [point.steps for point in best.curve] == [0, 200, 900]


def test_a_study_is_of_one_training_set_and_model_whatever_is_tested(tmp_path: Path) -> None:
    write_trial(tmp_path, "reckoning", 0.01, (0.5, 0.5, 0.5), data={"theories": {"train": 20, "test": 4}})
    write_trial(tmp_path, "ft_icr", 0.01, (0.5, 0.5, 0.5), data={"theories": {"train": 20, "test": 9}})
    write_trial(tmp_path, "no_facts", 0.01, (0.5, 0.5, 0.5), data={"theories": {"train": 30, "test": 4}})
    write_run(tmp_path, "random_facts", 20)
    found = studies_of(read_runs(tmp_path, None, None)[0])
    assert sorted(len(study.trials) for study in found.values()) == [1, 2]
    assert (
        len(
            {
                method_of(trial.run.keys)
                for study in found.values()
                for trials in study.trials.values()
                for trial in trials
            }
        )
        == 3
    )


# ---- in tables

WITH_CONTROL = """
methods: {ft_icr: {role: baseline}}
tables:
  demo:
    title: A demonstration
    columns: {A: [x=1]}
    rows:
      FT-ICR: {overrides: [method=ft_icr]}
      No-Facts: {overrides: [method=no_facts], role: ROLE}
      RECKONING: {overrides: [method=reckoning], against: FT-ICR}
      Rules: {overrides: [method=shortcuts], metric: accuracy_*, once: true}
"""


def cells_of(root: Path, steps: int, role: str = "control") -> dict[str, Filled]:
    return {cell.cell.row: cell for cell in table_of(root, steps, role).cells}


def table_of(root: Path, steps: int, role: str = "control") -> Joined:
    for method, right in (("ft_icr", 10), ("no_facts", 20), ("reckoning", 40), ("shortcuts", 0)):
        write_run(root, method, right, outer={"steps": steps})
    return filled(root, text=WITH_CONTROL.replace("ROLE", role))


@pytest.mark.parametrize(("steps", "learning"), [(100, True), (300, False), (900, False)])
def test_a_cell_with_less_than_enough_is_still_learning(tmp_path: Path, steps: int, learning: bool) -> None:
    study_of(tmp_path, reckoning=(0.80, 0.90, 0.91), ft_icr=(0.70, 0.71, 0.70))
    cells = cells_of(tmp_path, steps)
    verdicts = {row: cell.verdict for row, cell in cells.items()}
    assert verdicts["RECKONING"] is (Verdict.learning if learning else Verdict.better)
    assert verdicts["FT-ICR"] is (Verdict.learning if learning else None)
    assert verdicts["Rules"] is None, "nothing learns there"
    assert cells["RECKONING"].value == pytest.approx(100.0), "its number stays"


def test_without_a_study_of_its_data_a_cell_keeps_its_verdict(tmp_path: Path) -> None:
    write_trial(tmp_path, "reckoning", 0.01, (0.3, 0.6, 0.9), data={"theories": 30})
    assert cells_of(tmp_path, 100)["RECKONING"].verdict is Verdict.better


def test_there_is_no_verdict_against_a_baseline_that_is_not_the_best(tmp_path: Path) -> None:
    joined = table_of(tmp_path, 100, "baseline")
    cell = next(cell for cell in joined.cells if cell.cell.row == "RECKONING")
    assert (cell.verdict, cell.stronger, sign(cell)) == (Verdict.weaker, "No-Facts", "")
    text = render(grid_of(joined), "md")
    assert "No verdict, as another baseline is better: A, RECKONING (No-Facts)." in text
    assert "| not against the best baseline |" in text


def test_a_better_baseline_on_other_data_or_other_seeds_is_no_rival(tmp_path: Path) -> None:
    for root, settings in ((tmp_path / "data", {"data": {"theories": 30}}), (tmp_path / "seed", {"seed": 1})):
        write_run(root, "ft_icr", 10)
        write_run(root, "no_facts", 20, **settings)
        write_run(root, "reckoning", 40)
        cells = filled(root, text=WITH_CONTROL.replace("ROLE", "baseline")).cells
        assert next(cell for cell in cells if cell.cell.row == "RECKONING").verdict is Verdict.better


def test_another_metric_is_no_rival_and_differences_have_no_best(tmp_path: Path) -> None:
    """Recall of the better baseline stands in the same column; in the second one less of it may be better."""
    for method, right in (("ft_icr", 10), ("no_facts", 20), ("reckoning", 40)):
        write_run(tmp_path, method, right)
    text = """
methods: {ft_icr: {role: baseline}, no_facts: {role: baseline}}
tables:
  demo:
    title: A demonstration
    columns: {A: [x=1]}
    rows:
      FT-ICR: {overrides: [method=ft_icr]}
      No-Facts, by answer: {overrides: [method=no_facts], metric: accuracy@answer_yes}
      RECKONING: {overrides: [method=reckoning], against: FT-ICR}
"""
    assert filled(tmp_path, text=text).cells[-1].verdict is Verdict.better
    less = text.replace(", metric: accuracy@answer_yes", ", minus: [method=no_facts]")
    less = less.replace("method=ft_icr]", "method=ft_icr], minus: [method=no_facts]")
    less = less.replace("against", "minus: [method=no_facts], against")
    assert filled(tmp_path, text=less).cells[-1].verdict is Verdict.better
