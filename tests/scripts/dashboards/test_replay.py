"""Replay: one clean W&B run of a run folder, however often the run was continued."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.run.items import Item
from common.run.private import public_environment
from common.run.results import Interval
from common.run.run import Run, RunIdentity
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig, TrackerMode, TrackerName
from scripts.dashboards import replay
from tests import wandb_log

WHO = RunIdentity("paper", "experiment", "method", "cpu", 3)
TOTAL = 6
OFFLINE = TrackerConfig(TrackerName.wandb, TrackerMode.offline, tags=["draft"])


def train(folder: Path, *, crash_in: int | None = None, tracker: TrackerConfig | None = None) -> None:
    """A run that logs every step and saves every second one."""
    settings = {"seed": 3, "scale": "cpu", "tracker": {"tags": ["draft"]}}
    loop = LoopConfig(save_every=2, save_seconds=0)
    with Run(folder, settings, RuntimeConfig(device=Device.cpu), tracker or TrackerConfig(), loop, WHO) as run:
        for step in run.steps(TOTAL):
            run.log(step, "train", outer_loss=1 / step)
            if step == crash_in:
                raise ZeroDivisionError
            run.save_if_due(step)
        run.finish({"accuracy": Interval(0.75, 4, 0.5, 1.0)}, [Item("q", "g", {"accuracy": (1, 1)})])


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was started three times, offline."""
    folder = tmp_path_factory.mktemp("runs") / "continued"
    for crash_in in (3, 5):
        with pytest.raises(ZeroDivisionError):
            train(folder, crash_in=crash_in, tracker=OFFLINE)
    train(folder, tracker=OFFLINE)
    return folder


def test_a_run_continued_three_times_has_one_history(continued: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert len(list((continued / "wandb").glob("offline-run-*"))) == 3
    replay.main([str(continued), "--into", str(tmp_path), "--project", "p"])
    found = wandb_log.only(tmp_path)
    told = [row for row in found.history if "split" in row]
    assert told == records(continued) and [row["step"] for row in told] == [1, 2, 3, 4, 5, 6, 6]
    assert [row["step"] for row in found.history if "split" not in row] == [6], "tables and figures come last"
    assert found.id == json.loads((continued / "tracker.json").read_text())["train"]
    assert (found.project, found.group, found.job_type) == ("p", "paper/experiment", "method")
    assert found.tags == ["paper", "experiment", "method", "scale=cpu", "seed=3", "draft"]
    environment = public_environment(json.loads((continued / "environment.json").read_text()), dict)
    assert found.config == {"seed": 3, "scale": "cpu", "tracker": {"tags": ["draft"]}, "environment": environment}
    assert found.summary["test/accuracy"] == 0.75 and found.summary["cost/wall_seconds"] > 0
    assert found.exit_code == 0

    replay.main([str(continued), "--into", str(tmp_path), "--project", "q"])
    again = wandb_log.only(tmp_path)  # there is only one again
    assert (again.id, again.project, again.history[:-1]) == (found.id, "q", told)


def test_many_folders_at_once_go_on_after_one_that_fails(
    continued: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    root = tmp_path / "runs"
    with pytest.raises(ZeroDivisionError):
        train(root / "b" / "running", crash_in=3)
    with (root / "b" / "running" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')  # being written this moment
    for name in ("a-damaged", "c-old"):
        shutil.copytree(continued, root / name, ignore=shutil.ignore_patterns("wandb"))
    (root / "a-damaged" / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    old = json.loads((root / "c-old" / "environment.json").read_text())
    (root / "c-old" / "environment.json").write_text(json.dumps({k: v for k, v in old.items() if k != "run"}))
    (root / "c-old" / "tracker.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        replay.main([str(root), "--into", str(tmp_path / "out")])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert "2 of 3 runs replayed offline" in shown.out
    lines = shown.err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["1/3", "2/3", "3/3", "not"]
    assert "a-damaged" in lines[0] and lines[1].endswith("running: 3 records") and lines[2].endswith("c-old: 7 records")
    assert lines[3].startswith(f"not replayed: {root / 'a-damaged'}: ") and "metrics.jsonl:2: not a record" in lines[3]
    unfinished = json.loads((root / "b" / "running" / "tracker.json").read_text())["train"]
    running = wandb_log.only(next((tmp_path / "out" / "wandb").glob(f"*{unfinished}")))
    assert [row["step"] for row in running.history if "split" in row] == [1, 2, 3] and "unfinished" in running.tags


def test_mistakes_are_one_line_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([str(tmp_path / "nowhere")], "nowhere: no such folder"),
        ([str(tmp_path)], "no run there"),
        ([str(tmp_path), "--mode", "online"], "there is no W&B key"),
    ):
        with pytest.raises(SystemExit) as stopped:
            replay.main(words)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_what_was_tracked_in_the_run_folder_is_left_alone(continued: Path) -> None:
    before = sorted((continued / "wandb").rglob("run-*.wandb"))
    said = replay.replay_all([continued], OFFLINE, continued, lambda line: None)
    assert "this is the run's own folder" in said[continued]
    assert sorted((continued / "wandb").rglob("run-*.wandb")) == before and len(before) == 3


def test_an_unfinished_run_of_an_older_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run", crash_in=3)
    said = replay.replay_all([tmp_path / "run"], OFFLINE, tmp_path / "out", lambda line: None)
    assert said == {}
    (tmp_path / "run" / "environment.json").write_text("{}")
    said = replay.replay_all([tmp_path / "run"], OFFLINE, tmp_path / "out", lambda line: None)
    assert "begun by an older version" in said[tmp_path / "run"]


def test_online_it_is_a_new_start_of_the_same_run(
    tmp_path: Path, continued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not resumed: W&B then replaces what it had under that id."""
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        asked.append(options)
        raise OSError("no network in tests")

    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    online = TrackerConfig(TrackerName.wandb, TrackerMode.online)
    said = replay.replay_all([continued], online, tmp_path, lambda line: None)
    assert said == {continued: "OSError: no network in tests"}
    assert (asked[0]["mode"], asked[0]["resume"], asked[0]["dir"]) == ("online", None, tmp_path)
    assert asked[0]["settings"].x_disable_meta and asked[0]["settings"].x_disable_stats


def test_a_run_lands_in_the_project_that_it_says_and_nothing_else_of_its_tracker_counts(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    train(folder)
    config = folder / "config.yaml"
    for project, expected in (("mine", "mine"), ("${oc.env:HOME}", "innerloop"), ("../a", "innerloop")):
        settings = {"tracker": {"project": project, "entity": "them", "mode": "online", "tags": ["${oc.env:HOME}"]}}
        config.write_text(yaml.safe_dump({"seed": 3, "scale": "cpu", **settings}), encoding="utf-8")
        into = tmp_path / "into"
        replay.main([str(folder), "--into", str(into)])
        found = wandb_log.only(into)
        assert (found.project, "${oc.env:HOME}" in found.tags) == (expected, True)
    replay.main([str(folder), "--into", str(into), "--project", "other"])
    assert wandb_log.only(into).project == "other"


def test_an_offline_run_names_at_its_end_the_line_that_uploads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    caplog.set_level("INFO")
    train(tmp_path / "a run", tracker=OFFLINE)
    (place,) = (tmp_path / "a run" / "wandb").glob("offline-run-*")
    assert f"`wandb sync '{place}'` uploads the run" in caplog.text
