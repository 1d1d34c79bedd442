"""Published cells filled from run folders: values, intervals, pairing, verdicts."""

from pathlib import Path
from typing import Any

import pytest

from common import published
from common.published import Overrides
from scripts.cells import Joined, Verdict, join
from scripts.grids import render
from scripts.published_tables import grid_of
from scripts.rows import Run, read_runs
from tests.scripts.test_tables import QUESTIONS, write_run

TABLE = """
tables:
  demo:
    title: A demonstration
    where: Table 1
    columns: {A: [x=1], B: {overrides: [x=1], metric: accuracy_yes}}
    rows:
      FT-ICR: {overrides: [method=ft_icr], source: recalled, values: {A: 80, B: null}}
      RECKONING: {overrides: [method=reckoning], against: FT-ICR, source: seen, values: {A: ORDER, B: null}}
      Gain: {overrides: [method=reckoning], minus: [method=ft_icr], skip: [B]}
      No-Facts: {overrides: [method=no_facts], skip: [B]}
      Rules: {overrides: [method=shortcuts], metric: best_rule, once: true, skip: [B]}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance, once: true, skip: [B]}
"""


def filled(root: Path, order: int = 90, scale: str = "cpu", text: str = TABLE) -> Joined:
    table = published.parse("reckoning", text.replace("ORDER", str(order))).table("demo")
    runs = read_runs(root, None, None)[0]
    own = {run.results.method: run.keys for run in runs}

    def settings(words: Overrides) -> dict[str, Any]:
        return own.get(words[-1].partition("=")[2], {"none": words})

    return join(table, runs, settings, scale)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of two methods, the better one right wherever the other is."""
    for seed, right in enumerate((36, 38, 40)):
        write_run(tmp_path, "reckoning", right, seed=seed)
        write_run(tmp_path, "ft_icr", right - 10, seed=seed)
    write_run(tmp_path, "shortcuts")
    return tmp_path


def by_name(joined: Joined) -> dict[tuple[str, str], Any]:
    return {(cell.cell.row, cell.cell.column): cell for cell in joined.cells}


def test_values_are_means_over_seeds_and_differences_of_them(runs: Path) -> None:
    cells = by_name(filled(runs))
    assert cells["RECKONING", "A"].value == pytest.approx(95.0) and cells["RECKONING", "A"].seeds == 3
    assert cells["RECKONING", "A"].difference == pytest.approx(5.0)
    assert cells["Gain", "A"].value == pytest.approx(25.0)
    assert cells["RECKONING", "B"].value == pytest.approx(100 * (18 + 19 + 20) / 60)
    assert (cells["Rules", "A"].value, cells["Rules", "A"].rule) == (pytest.approx(60.0), "bag of words")
    assert cells["Chance", "A"].value == cells["Chance", "A"].low == cells["Chance", "A"].high == 50.0


def test_the_interval_of_nothing_but_right_answers_has_a_width(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", QUESTIONS)
    cell = by_name(filled(tmp_path))["RECKONING", "A"]
    assert cell.high == 100.0 and 80 < cell.low < 95


@pytest.mark.parametrize(("order", "verdict"), [(90, Verdict.holds), (70, Verdict.fails), (80, Verdict.better)])
def test_the_verdict_compares_with_the_published_order(runs: Path, order: int, verdict: Verdict) -> None:
    cell = by_name(filled(runs, order))["RECKONING", "A"]
    assert cell.verdict is verdict
    assert cell.apart is not None and cell.apart[0] == pytest.approx(25.0) and cell.apart[1] > 0
    assert by_name(filled(runs))["RECKONING", "B"].verdict is Verdict.better, "its order was not reached"


def test_a_difference_inside_its_interval_decides_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "reckoning", 31)
    write_run(tmp_path, "ft_icr", 30)
    assert by_name(filled(tmp_path))["RECKONING", "A"].verdict is Verdict.open


@pytest.mark.parametrize(("order", "verdict"), [(94, Verdict.within), (90, Verdict.outside)])
def test_tolerance_counts_at_the_published_size_only(runs: Path, order: int, verdict: Verdict) -> None:
    text = TABLE.replace("{A: [x=1]", "{A: {overrides: [x=1], tolerance: 2}")
    assert by_name(filled(runs, order, "paper", text))["RECKONING", "A"].verdict is verdict
    assert by_name(filled(runs, order, "cpu", text))["RECKONING", "A"].verdict is Verdict.holds


def test_what_is_not_run_is_named_with_its_command(runs: Path) -> None:
    joined = filled(runs)
    assert joined.missing == [("x=1", "method=no_facts")]
    grid = grid_of(joined)
    line = next(line for line in grid.body if line[1] == "No-Facts")
    assert line[-1] == "not run" and line[3] == ""
    assert grid.notes[-1].endswith("python -m reckoning.train -m +sweep=demo scale=cpu seed=0,1,2 hydra/launcher=local")


def test_every_format_shows_published_reproduced_difference_and_verdict(runs: Path) -> None:
    grid = grid_of(filled(runs))
    for form in ("term", "md", "latex", "csv"):
        text = render(grid, form)
        assert all(part in text for part in ("RECKONING", "95.0", "+5.0", "ordering holds", "not reached", "80.0 r"))


def test_folders_do_not_matter(runs: Path) -> None:
    for number, run in enumerate(read_runs(runs, None, None)[0]):
        run.folder.rename(run.folder.parent / f"renamed-{number}")
    assert by_name(filled(runs))["RECKONING", "A"].seeds == 3


def test_runs_of_a_cell_are_all_there(runs: Path) -> None:
    assert {run.results.method for run in filled(runs).runs} == {"reckoning", "ft_icr", "shortcuts"}
    assert all(isinstance(run, Run) for run in filled(runs).runs)
