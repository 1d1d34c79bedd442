"""What a training run leaves for W&B and for the report: its sweep, its rates, and a history equal to metrics.jsonl."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run import rate_record
from common.run.private import told
from reckoning import evaluate, train
from tests import wandb_log
from tests.runs import metrics_of, run_here

SWEEP = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {method: 'reckoning,ft_icr'}}}\n"


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rates_are_recorded_before_training_and_at_every_evaluation(trained: Path) -> None:
    found = rate_record.read(trained)
    assert found is not None and [record["step"] for record in found.records] == [0, 2, 4]
    assert {rate for row in found.at(0) for rate in row} == {0.01} and {len(row) for row in found.at(0)} == {2}
    assert "transformer.h.1" in found.layers and len(found.names) == len(found.layers)
    rates = [rate for row in found.at(4) for rate in row]
    shown = metrics_of(trained, "train")[-1]
    assert (min(rates), max(rates)) == pytest.approx((shown["rates/min"], shown["rates/max"]), rel=1e-6)
    dev = {record["step"]: record["dev/accuracy"] for record in metrics_of(trained, "dev") if record["step"]}
    assert found.selected == max(dev, key=lambda step: (dev[step], -step)), "the first of the best"


@pytest.fixture(scope="module")
def tracked(mini: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Method -> run folder, of a sweep with W&B offline."""
    wandb = pytest.importorskip("wandb")
    root = tmp_path_factory.mktemp("tracked")
    conf = root / "conf"
    shutil.copytree(mini.folder / "conf", conf)
    (conf / "sweep").mkdir()
    (conf / "sweep" / "demo.yaml").write_text(SWEEP)
    words = mini.words(root / "runs", "-m", "+sweep=demo", "tracker=wandb", "tracker.mode=offline", "outer.steps=2")
    words[words.index("--config-dir") + 1] = str(conf)
    assert run_here(train.main, *words) == 0
    folders = {json.loads((mark.parent / "results.json").read_text())["method"]: mark.parent
               for mark in root.rglob("FINISHED")}  # fmt: skip
    yield folders
    wandb.teardown()


@pytest.mark.parametrize("method", ["reckoning", "ft_icr"])
def test_a_run_of_a_sweep_is_in_wandb_what_its_folder_says(tracked: dict[str, Path], method: str) -> None:
    folder = tracked[method]
    found = wandb_log.only(folder)
    assert (found.group, found.job_type) == ("reckoning/demo", method)
    assert {"reckoning", "mini", method, "scale=paper", "seed=0"} <= set(found.tags)
    *history, media = found.history
    assert history == records(folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    assert found.config == told("reckoning", settings, environment, machine=False)
    assert found.config["environment"]["sweep"] == "demo"
    tested = json.loads((folder / "results.json").read_text())["test"]
    assert {name: found.summary[f"test/{name}"] for name in tested} == {name: tested[name]["value"] for name in tested}
    kinds = {key.removesuffix("/_type") for key in media if key.endswith("/_type")}
    adapted = {"tables/rates", "plots/rates"} if method == "reckoning" else set()
    assert kinds == {"tables/predictions", "plots/learning_curve"} | adapted
    assert (folder / "rates.json").is_file() is (method == "reckoning")


def test_a_run_stays_with_the_sweep_that_started_it_first(tracked: dict[str, Path], mini: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tracked["ft_icr"], tmp_path / "runs" / "reckoning" / "mini" / tracked["ft_icr"].name))
    (folder / "FINISHED").unlink()
    assert mini.train(tmp_path / "runs", "method=ft_icr", "outer.steps=2") == 0
    assert json.loads((folder / "environment.json").read_text())["sweep"] == "demo"


def test_a_later_evaluation_is_a_wandb_run_of_its_own(tracked: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tracked["reckoning"], tmp_path / "run", ignore=shutil.ignore_patterns("wandb")))
    assert run_here(evaluate.main, f"run={folder}", "split=dev", "tracker=wandb", "tracker.mode=offline") == 0
    found = wandb_log.only(folder)
    assert (found.group, found.job_type, found.history) == ("reckoning/demo", "evaluate", [])
    tested = json.loads((folder / "evaluation-dev.json").read_text())
    assert found.summary["dev/accuracy"] == tested["accuracy"]["value"]
    assert found.id != json.loads((folder / "tracker.json").read_text())["train"]
