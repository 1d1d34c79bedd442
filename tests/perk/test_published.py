"""Every cell of PERK's tables asks for a metric that its runs write, and tiny runs really fill a table."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from common.run.schema import to_typed
from common.tables import published, sweep
from common.tables.cells import Overrides, key_of, merged
from common.tables.join import Verdict
from common.tables.runs import read_runs, scores_of
from perk.config import Task, TrainConfig
from perk.evaluate import passes
from perk.shortcuts import shortcuts_of
from scripts.tables.published_tables import fill, grid_of
from tests.runs import run_here

PAPER = published.read("perk")
DECIDING = ("experiment", "data", "data.length", "data.apis.position", "evaluation.lengths", "evaluation.positions")
"""Keys that decide which metrics a run writes, besides whether it has a network; the scale does not."""


def written(config: TrainConfig, rules_alone: bool) -> set[str]:
    """Names of the metrics that cells may ask of a run."""
    asked, made = config.evaluation.lengths, passes(config)
    slices = [f"length_{each.length}" for each in made if asked and each.further in ("", "length")]
    slices += [f"position_{each.position}" for each in made if each.position is not None]
    if rules_alone:
        rules = [*(rule.name for rule in shortcuts_of(config.data)), "constant", "constant_by_kind", "chance"]
        whole = ["accuracy_*", *(f"accuracy_{rule}" for rule in rules)]
        return {*whole, *(f"{name}@{part}" for name in whole for part in slices)}
    names = {"accuracy", "exact"} | ({"label_match"} if config.data.task is Task.babilong else set())
    return names | {f"{name}@{part}" for name in names for part in slices}


def test_every_cell_asks_for_a_metric_that_its_run_writes() -> None:
    found = [
        (f"{table.name}, {cell.row}, {cell.column}", cell.metric, run)
        for table in PAPER.tables.values()
        for cell in table.at("paper").cells()
        for run in (*cell.runs, *cell.minus)
    ]
    assert len(found) > 600
    known: dict[tuple[Overrides, bool], set[str]] = {}
    with sweep.composing("perk") as compose:
        for words in {deciding(run) for *_, run in found}:
            config = to_typed(OmegaConf.create(sweep.settings_of(compose(words))), TrainConfig)
            known |= {(words, rules_alone): written(config, rules_alone) for rules_alone in (False, True)}
    for where, metric, run in found:
        assert metric in known[deciding(run), "method=shortcuts" in run], f"{where}: {metric} of {run}"


def deciding(run: Overrides) -> Overrides:
    return tuple(sorted(word for word in run if key_of(word) in DECIDING))


TABLE = """
tables:
  lengths:
    title: Lengths
    overrides: [+experiment=babilong_qa2, data.length=1024, "evaluation.lengths=[512,2048]"]
    columns:
      1K: {metric: accuracy@length_1024}
      2K: {metric: accuracy@length_2048}
      official: {metric: label_match@length_512}
      own: {metric: accuracy}
    rows:
      FT-ICR: {overrides: [method=ft_icr]}
      PERK: {overrides: [method=perk], against: FT-ICR}
      Retrieval: {overrides: [method=retrieval], against: FT-ICR}
      Best rule: {overrides: [method=shortcuts], metric: accuracy_*@column, once: true}
      Constant: {overrides: [method=shortcuts], metric: accuracy_constant_by_kind@column, once: true}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance@column, once: true, skip: [official, own]}
      Chance, own: {overrides: [method=shortcuts], metric: accuracy_chance, once: true, skip: [1K, 2K, official]}
  positions:
    title: Positions
    overrides: [+experiment=api_retrieval, data.length=2048, "evaluation.positions=[pre,rnd]"]
    columns: {Pre: {metric: accuracy@position_pre}, Rnd: {metric: accuracy@position_rnd}}
    rows:
      PERK: {overrides: [method=perk]}
      Best rule: {overrides: [method=shortcuts], metric: accuracy_*@column, once: true}
      Chance: {overrides: [method=shortcuts], metric: accuracy_chance@column, once: true}
"""


@pytest.mark.parametrize("name", ["lengths", "positions"])
def test_tiny_runs_fill_every_cell(mini: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Really trained, through the command; tables find them by their settings."""
    from perk.train import main

    table = published.parse("perk", TABLE).table(name)
    usual = [word for word in mini.words(tmp_path) if key_of(word) not in ("experiment", "data.length", "scale")]
    usual += ["outer.steps=1", "data.count={train:4,dev:1,test:3}", "evaluation.problems=2", "loop.evaluate_every=0"]
    usual += ["evaluation.max_new_tokens=2"]
    for words, _ in table.jobs():
        assert run_here(main, *merged(usual, ["scale=cpu"], words)) == 0
    composing = sweep.composing

    @contextmanager
    def small(*given: str) -> Iterator[sweep.Compose]:
        with composing(*given) as compose:
            yield lambda words: compose(merged(usual, words))

    monkeypatch.setattr(sweep, "composing", small)
    runs = read_runs(tmp_path, "perk", None)[0]
    joined = fill(table, runs, "cpu")
    assert not joined.missing
    assert all(cell.value is not None and cell.verdict is not Verdict.missing for cell in joined.cells)
    assert all(line[3] for line in grid_of(joined).body)
    counts = {"own": 3, "1K": 3, "2K": 2, "official": 2, "Pre": 2, "Rnd": 3}
    for cell in joined.cells:
        (run,) = joined.found[cell.cell.runs[0]].values()
        metric = cell.cell.metric.replace("*", "constant")
        scores = scores_of(run, metric)
        assert scores is not None and scores.wholes.sum() == counts[cell.cell.column]
        test = json.loads((run.folder / "results.json").read_text())["test"]
        if metric in test:
            assert test[metric]["value"] == pytest.approx(scores.value) and test[metric]["count"] == scores.wholes.sum()
        else:
            assert metric == "label_match@length_512"
