"""Comparisons of arbitrary runs: what they show is what the paper's file names, whatever its metrics are."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.run import results
from common.run.items import Item, OfAll, write_of_all
from common.tables import published
from common.tables.cells import Role
from common.tables.comparison import Table, rows_of, tables_of
from common.tables.intervals import Kind
from common.tables.runs import read_runs
from common.tables.summary import summarise
from scripts.tables.comparison import grid_of, verdict
from tests.scripts.tables.test_tables import write_run

FILE = """
title: OURS
methods:
  reckoning: {role: method}
  ft_icr: {role: baseline, ignores: [inner]}
  shortcuts: {role: rule}
rules: {loss_copy: {role: chance, title: Copy}}
comparison:
  items: clips
  by: {slice: gap, first: [10, 2]}
  columns:
    loss: {metric: loss, unit: nats, higher_is_better: false}
    distance: {metric: fvd, unit: "", higher_is_better: false}
    robust: {metric: pgd20}
tables: {t: {title: t, columns: {a: [x=1]}, rows: {b: [x=2]}}}
"""
CLIPS = 12


def run(root: Path, method: str, loss: float, *, distance: float | None = None, seed: int = 0) -> None:
    """Clips of three gaps with losses around `loss`; of rules, one that has it and one that copies."""
    folder = write_run(root, method, 1, seed=seed)
    items = []
    for clip in range(CLIPS):
        value = loss + clip % 4 / 10
        names = {"loss_last": value, "loss_copy": 5.0} if method == "shortcuts" else {"loss": value}
        scores: dict[str, tuple[float, float]] = {name: (each, 1) for name, each in names.items()}
        items.append(Item(f"c{clip}", f"c{clip}", scores, {"gap": (2, 4, 10)[clip % 3]}))
    if distance is not None:
        write_of_all(folder, {"fvd": OfAll(distance, {f"c{clip}": distance + clip for clip in range(CLIPS)})})
    kinds = dict.fromkeys(items[0].scores, Kind.quality)
    test = summarise(items, 0.95, by={}, kinds=kinds, exact=("loss_copy",))
    test |= {} if distance is None else {"fvd": results.Interval(distance, CLIPS, distance - 1, distance + 1)}
    written = replace(results.read(folder), test=test)
    results.write(folder, written, [item.to_json() for item in items])


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    paper = published.parse("reckoning", FILE)
    monkeypatch.setattr(published, "read", lambda name: paper)
    for seed, loss in enumerate((1.0, 1.2)):
        run(tmp_path, "reckoning", loss, distance=100.0 + seed, seed=seed)
    run(tmp_path, "ft_icr", 2.0)
    run(tmp_path, "random_facts", 0.5)
    run(tmp_path, "shortcuts", 3.0)
    (found,) = tables_of(read_runs(tmp_path, None, None)[0])
    return found


def test_rows_stand_by_role_and_then_from_the_best_in_the_direction_of_the_first_column(table: Table) -> None:
    rows = [(row.title, row.role) for row in rows_of(table)]
    assert rows == [
        ("Random-Facts", Role.method), ("RECKONING (multi-task)", Role.method), ("FT-ICR (multi-task)", Role.baseline),
        ("Shortcut: last", Role.rule), ("Copy", Role.chance),
    ]  # fmt: skip


def test_columns_are_those_of_the_papers_file_in_their_units(table: Table) -> None:
    grid = grid_of(table, rows_of(table), [])
    assert list(grid.head) == [
        "method", "loss nats", "95 % interval", "seeds", "clips", "10 nats", "2 nats", "4 nats", "distance",
        "wall time",
    ]  # fmt: skip
    lines = {line[0]: line[1:] for line in grid.body}
    assert lines["RECKONING (multi-task)"][0] == "1.25" and lines["RECKONING (multi-task)"][2:4] == ["2", "12"]
    assert lines["RECKONING (multi-task)"][7] == "100" and lines["FT-ICR (multi-task)"][7] == "", "it has no distance"
    assert lines["Copy"][:2] == ["5", "exact"] and grid.ends == [1, 2]


def test_an_interval_that_is_no_share_goes_beyond_one_and_holds_the_spread_of_seeds(table: Table) -> None:
    ours = rows_of(table)[1].interval()
    assert ours.value == pytest.approx(1.25)
    assert ours.low < 0.5 and ours.high > 2.0, "clips alone say 1.25 ± 0.1; seeds differ by 0.2"


def test_the_sentence_names_the_papers_method_and_the_rule_with_the_lowest_loss(table: Table) -> None:
    said = verdict(rows_of(table), published.read("reckoning"))
    assert said.startswith("RECKONING (multi-task): loss 1.25 nats, 99 % interval ")
    assert "the best of 2 rules without reasoning (shortcut: last) gets 3.15 nats: it lies inside the interval" in said


def test_runs_without_the_first_columns_metric_are_named_with_the_way_out(table: Table, tmp_path: Path) -> None:
    write_run(tmp_path, "no_facts", 3)
    (found,) = tables_of(read_runs(tmp_path, None, None)[0])
    with pytest.raises(UserError, match="no_facts-0: no loss; name a metric .* of reckoning/published.yaml"):
        rows_of(found)


def test_settings_that_a_method_does_not_read_are_not_compared(table: Table) -> None:
    rows = {row.title: row.settings for row in rows_of(table)}
    assert "inner.lr" in rows["RECKONING (multi-task)"] and not rows["FT-ICR (multi-task)"]
