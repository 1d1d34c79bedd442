"""The evaluation command: the run's own numbers again, and nothing of the run touched."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reckoning.evaluate import main
from tests.runs import hashes, run_here


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, under its own name."""
    return Path(shutil.copytree(trained, tmp_path / trained.name))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 2; returns its message."""

    def command(*words: str) -> str:
        assert run_here(main, *words) == 2
        return capsys.readouterr().err

    return command


def test_it_finds_the_runs_own_results_and_changes_nothing(run: Path) -> None:
    before = hashes(run)
    assert run_here(main, f"run={run}") == 0
    found = json.loads((run / "evaluation-test.json").read_text())
    assert found == json.loads((run / "results.json").read_text())["test"]
    after = hashes(run)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {str(run / "evaluation-test.json")}


def test_another_split_other_steps_and_another_confidence(run: Path) -> None:
    assert run_here(main, f"run={run}", "split=dev", "inner_steps=4", "confidence=0.5", "device=cpu") == 0
    found = json.loads((run / "evaluation-dev+inner_steps-4.json").read_text())
    assert found["accuracy"]["count"] == 12
    narrow = found["recall_exact"]["high"] - found["recall_exact"]["low"]
    assert run_here(main, f"run={run}", "split=dev", "inner_steps=4") == 0
    wide = json.loads((run / "evaluation-dev+inner_steps-4.json").read_text())["recall_exact"]
    assert narrow < wide["high"] - wide["low"]


def test_what_is_not_a_run_is_refused(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "no run folder (config.yaml is missing)" in fails(f"run={tmp_path}")
    assert "run has no value: give one" in fails()


def test_other_mistakes_are_named(fails: Callable[..., str], run: Path) -> None:
    assert "split=val: use one of train, dev, test" in fails(f"run={run}", "split=val")
    assert "evaluation.inner_steps=-1: use 0 or more" in fails(f"run={run}", "inner_steps=-1")
    assert "unknown key confidense: did you mean confidence?" in fails(f"run={run}", "confidense=0.9")
    shutil.rmtree(run / "checkpoints")
    assert "finished, and without weights: archives (python -m scripts.archive) keep none" in fails(f"run={run}")


def test_a_model_that_has_changed_since_is_refused(
    fails: Callable[..., str], run: Path, mini: Any, tmp_path: Path
) -> None:
    other = shutil.copytree(mini.folder / "model", tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "n_layer": 1}))
    config = (run / "config.yaml").read_text().replace(str(mini.folder / "model"), str(other))
    (run / "config.yaml").write_text(config.replace("pretrained: true", "pretrained: false"))
    assert "its weights do not fit model.name=" in fails(f"run={run}")


def test_shortcuts_have_nothing_to_evaluate(fails: Callable[..., str], run: Path) -> None:
    config = (run / "config.yaml").read_text().replace("learner: reckoning", "learner: shortcuts")
    (run / "config.yaml").write_text(config)
    assert "shortcut rules have no weights to evaluate; read its results.json" in fails(f"run={run}")


def test_somebodys_configuration_is_plain_data(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.chdir(tmp_path)
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["tracker"] |= {"name": "tensorboard", "tags": ["${oc.env:SECRET}"]}
    config["data"]["cache"] = str(tmp_path / "theirs")
    config["loop"]["root"] = str(tmp_path / "theirs")
    config["experiment"] = "${oc.env:SECRET}"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert run_here(main, f"run={run}", "split=dev", "inner_steps=1") == 0
    assert not (tmp_path / "theirs").exists() and not (run / "tensorboard").exists()
    assert run_here(main, f"run={run}", "split=dev", "inner_steps=1", "tracker=tensorboard") == 0
    assert (run / "tensorboard" / "evaluate").is_dir()
    files = [each for each in [*run.rglob("*"), *tmp_path.rglob("*")] if each.is_file()]
    assert files and not [each for each in files if b"s3cret" in each.read_bytes()]
