"""The dashboard's report, built and printed without a network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run import results
from common.run.items import Item
from common.run.results import Interval, Results
from common.run.trackers.names import TRAIN, run_id
from common.tables import published, sweep
from common.tables.cells import Table
from common.tables.join import Filled, Joined, Verdict
from common.tables.runs import Run
from reckoning.config import TrainConfig
from scripts.dashboards import report as dashboard
from scripts.tables.published_tables import every_paper

TEXT = """
tables:
  table1:
    title: Accuracy
    where: Table 1
    columns:
      A: [+experiment=one]
      B: {overrides: [+experiment=two, inner.steps=5], metric: accuracy@depth_2}
    rows:
      Base: {overrides: [method=base], source: seen, values: {A: 90.5, B: null}}
      New: {overrides: [method=new, model=large], against: Base, source: recalled, values: {A: 95.25}}
      Best rule: {overrides: [method=rules], metric: accuracy_*}
"""


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces: make setup")


def table() -> Table:
    return published.parse("reckoning", TEXT).table("table1")


def joined(*runs: Run) -> Joined:
    cells = [Filled(cell, verdict=Verdict.missing) for cell in table().cells()]
    return Joined(table(), "cpu", cells, list(runs))


def grids(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for block in report["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            yield block["metadata"]


def grid_of(given: Joined) -> dict[str, Any]:
    (grid,) = grids(json.loads(dashboard.as_json(dashboard.build([given], "cpu", "project", "team"))))
    return grid


def test_metrics_and_keys_are_those_that_the_table_compares_and_varies() -> None:
    assert dashboard.metrics_of(joined()) == ["test/accuracy", "test/accuracy@depth_2"]
    assert dashboard.keys_of(table()) == ["experiment", "inner.steps", "model.name"]


def test_panels_hold_bars_the_published_numbers_cost_and_curves() -> None:
    panels = grid_of(joined())["panelBankSectionConfig"]["panels"]
    kinds = [panel["viewType"] for panel in panels]
    assert kinds == ["Bar Chart", "Markdown Panel", *["Run History Line Plot"] * 6, *["Bar Chart"] * 2, "Media Browser"]
    assert panels[0]["config"]["metrics"] == ["test/accuracy", "test/accuracy@depth_2"]
    text = panels[1]["config"]["value"]
    assert "| A | Base | 90.5 |" in text and "| A | New | 95.2 r |" in text and "| B | Base | not reached |" in text
    drawn = {name for panel in panels for name in panel["config"].get("metrics", [])}
    assert {"dev/accuracy", "train/grad_norm", "rates/median", "cost/wall_seconds"} <= drawn
    assert panels[-1]["config"]["mediaKeys"] == ["plots/rates"]
    for panel in panels:
        if panel["viewType"] in ("Bar Chart", "Run History Line Plot"):
            assert (panel["config"]["groupAgg"], panel["config"]["groupArea"]) == ("mean", "minmax")
    places = [(p["layout"]["x"], p["layout"]["y"]) for p in panels]
    assert len(set(places)) == len(places) and all(p["layout"]["x"] + p["layout"]["w"] <= 24 for p in panels)


def test_runs_are_grouped_by_method_and_what_varies_so_that_seeds_alone_are_averaged() -> None:
    (runset,) = grid_of(joined())["runSets"]
    keys = [(key["section"], key["name"]) for key in runset["grouping"]]
    assert keys == [
        ("run", "jobType"), ("config", "experiment.value"), ("config", "inner.value.steps"),
        ("config", "model.value.name"),
    ]  # fmt: skip
    assert "project" not in runset, "a project would be looked up over the network"


def test_without_runs_here_the_tables_group_is_shown() -> None:
    (runset,) = grid_of(joined())["runSets"]
    shown = [(f["key"]["name"], f["op"], f["value"]) for f in runset["filters"]["filters"]]
    assert shown == [("group", "=", "reckoning/table1"), ("jobType", "!=", "evaluate"), ("scale", "=", "cpu")]


def test_runs_behind_the_table_are_shown_by_their_ids_whichever_sweep_started_them(tmp_path: Path) -> None:
    made = Results("reckoning", "demo", "ft_icr", "cpu", 0, "", "abc", False, {}, 1.0, 0, {})
    runs = [Run(tmp_path / name, made, {}, {}) for name in "abc"]
    ids = [run_id(run.folder, TRAIN) for run in runs[:2]]  # the third was never sent
    assert dashboard.sent(joined(*runs)) == sorted(ids)
    (runset,) = grid_of(joined(*runs))["runSets"]
    (chosen,) = runset["filters"]["filters"]
    assert (chosen["key"]["name"], chosen["op"], chosen["value"]) == ("name", "IN", sorted(ids))


def test_a_run_folder_fills_its_row_in_words_and_is_shown_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scale=cpu", "+experiment=proofwriter_repaired", "method=no_facts"]
    with sweep.composing("reckoning") as compose:
        config = sweep.settings_of(compose(words))
    folder = tmp_path / "reckoning" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text("{}")
    found = results.Results(
        "reckoning", "proofwriter_repaired", "no_facts", "cpu", 0, config_hash=results.config_hash(config, TrainConfig),
        revision="", dirty=None, hardware={}, wall_seconds=1.0, peak_memory_bytes=1,
        test={"accuracy": Interval(0.75, 4, 0.2, 0.9)},
    )  # fmt: skip
    items = [Item(f"q{i}", f"t{i}", {"accuracy": (int(i > 0), 1)}, {"answer": "yes"}) for i in range(4)]
    results.write(folder, found, [item.to_json() for item in items])

    (given,) = dashboard.tables_of(tmp_path, ["reckoning"], "table1_repaired", "cpu")
    assert [run.folder for run in given.runs] == [folder]
    assert (
        "| Repaired | No-Facts |  | 75.0 |" in grid_of(given)["panelBankSectionConfig"]["panels"][1]["config"]["value"]
    )
    monkeypatch.setattr(dashboard, "tables_of", lambda *_: [given])
    dashboard.main(["--dry-run", "--root", "there"])
    shown = capsys.readouterr()
    assert (
        "reckoning/table1_repaired: 1 of 1 runs are not in W&B: python -m scripts.dashboards replay there" in shown.err
    )
    identity = run_id(folder, TRAIN)
    dashboard.main(["--dry-run", "--root", "there"])
    shown = capsys.readouterr()
    assert shown.err == "" and identity in shown.out


def test_a_dry_run_prints_every_published_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard.main(["--dry-run", "--root", str(tmp_path), "--project", "mine"])
    report = json.loads(capsys.readouterr().out)
    assert report["project"]["name"] == "mine"
    there = [grid["runSets"][0]["name"] for grid in grids(report)]
    papers = [published.read(name) for name in every_paper()]
    tables = [table for paper in papers for table in paper.tables.values() if table.at("cpu").jobs()]
    assert there == [f"{table.paper}/{table.name}, scale=cpu" for table in tables]


def test_one_table_and_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard.main(["--dry-run", "--root", str(tmp_path), "--table", "table1", "--scale", "paper"])
    text = capsys.readouterr().out
    assert len(list(grids(json.loads(text)))) == 2, "RECKONING and SlowFast-VGen have a table of that name"
    assert "python -m reckoning.train -m +sweep=table1 scale=paper seed=0,1,2" in text


def test_saving_sends_the_report_over_the_one_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb_workspaces.reports import v2 as wr

    saved: list[Any] = []
    monkeypatch.setattr(wr.Report, "save", lambda self: saved.append(self))
    monkeypatch.setattr(wr.Report, "url", property(lambda self: f"there/{self.id}"))
    old = dashboard.build([], "cpu", "project", "team")
    old.id = "known"
    monkeypatch.setattr(wr.Report, "from_url", staticmethod(lambda url: old))
    assert dashboard.save(dashboard.build([joined()], "cpu", "project", "team"), "there/known") == "there/known"
    assert [report.title for report in saved] == ["Published and reproduced, scale=cpu"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--entity: name the W&B user or team"),
        (["--dry-run", "--table", "table99"], "table=table99: reckoning has table1"),
        (["--dry-run", "--paper", "nobody"], "paper=nobody"),
        (["--entity", "team"], "W&B did not take the report (OSError: no network"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    from wandb_workspaces.reports import v2 as wr

    def save(self: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(wr.Report, "save", save)
    with pytest.raises(SystemExit) as stopped:
        dashboard.main([*words, "--root", str(tmp_path)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.reports", None)
    with pytest.raises(SystemExit):
        dashboard.main(["--dry-run", "--root", str(tmp_path)])
    assert "the dashboard needs wandb-workspaces" in capsys.readouterr().err
