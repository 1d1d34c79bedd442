"""`-m +sweep=<table>`: what is missing is run, what is finished skipped, what failed named, and the table filled."""

import json
from pathlib import Path
from typing import Any

import pytest

from reckoning.train import main
from scripts.tables import __main__ as tables
from tests.runs import run_here

ROWS = "hydra.sweeper.rows=[No-Facts,FT-ICR ST,Chance]"
FOLDERS = "reckoning/proofwriter_repaired"


def sweep(mini: Any, root: Path, *more: str) -> int:
    """Three rows of a table, on the miniature's model and data: two methods with two seeds, the rules once."""
    return run_here(
        main, "--config-dir", str(mini.folder / "conf"), "-m", "+sweep=table1_repaired", "data=mini", "model=mini",
        "scale=cpu", "outer.steps=2", "evaluation.max_new_tokens=2", f"loop.root={root}", ROWS, "seed=0,1", *more,
    )  # fmt: skip


def finished(root: Path) -> set[str]:
    return {mark.parent.name for mark in (root / FOLDERS).rglob("FINISHED")}


def test_a_dry_run_says_what_would_run_and_runs_nothing(
    mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(mini, tmp_path, "hydra.sweeper.dry_run=true") == 0
    shown = capsys.readouterr().out
    assert "table1_repaired: 5 runs, 0 finished, 0 begun, 5 to start" in shown
    assert shown.count("to start  ") == 5
    assert not (tmp_path / FOLDERS).exists()


def test_a_sweep_fills_its_table_and_runs_again_only_what_is_missing(
    mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(mini, tmp_path, "method=no_facts") == 0
    assert len(finished(tmp_path)) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDERS).rglob("results.json")}
    capsys.readouterr()
    assert sweep(mini, tmp_path) == 0
    shown = capsys.readouterr().out
    assert "5 runs, 2 finished, 0 begun, 3 to start; about 0:0" in shown
    assert "all 5 runs are finished" in shown
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert len(finished(tmp_path)) == 5

    experiment = json.loads(next((tmp_path / FOLDERS).rglob("results.json")).read_text())["experiment"]
    tables.show([f"root={tmp_path}", f"experiment={experiment}"])
    assert "FT-ICR (single-task)" in capsys.readouterr().out


def test_a_run_that_fails_is_named_at_the_end_and_stops_no_other(
    mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(mini, tmp_path, "method=no_facts", "seed=1") == 0
    (folder,) = [path.parent for path in (tmp_path / FOLDERS).rglob("FINISHED")]
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("steps: 2", "steps: 3"))
    (folder / "FINISHED").write_text("made by other settings\n")
    assert sweep(mini, tmp_path) == 1
    shown = capsys.readouterr().err
    assert "error: 1 of 5 runs did not finish" in shown
    assert f"{folder}: UserError: {folder} holds a run with other settings" in shown
    assert len(finished(tmp_path)) == 5


def test_mistakes_are_found_before_anything_runs(mini: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, message in (
        ("method=reckoning_sum", "method=reckoning_sum: the cells of table1_repaired have method="),
        ("hydra.sweeper.columns=[CL 9]", "columns=['CL 9'] of reckoning table1_repaired: it has Repaired"),
        ("hydra.sweeper.table=table9", "table=table9: reckoning has table1"),
        ("inner.stepz=3", "stepz"),
        ("evaluation.confidence=3", "evaluation.confidence=3"),
    ):
        assert sweep(mini, tmp_path, word) == 2, word
        assert message in capsys.readouterr().err
    assert not (tmp_path / FOLDERS).exists()
