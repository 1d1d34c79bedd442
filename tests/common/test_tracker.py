"""W&B as a mirror: real in offline mode, and harmless when it fails."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.results import RunIdentity
from common.schema import TrackerConfig, TrackerMode, TrackerName
from common.tracker import NoTracker, Tracker, has_key, make_tracker, wandb_mode

WHO = RunIdentity(paper="paper", experiment="experiment", method="method", scale="cpu", seed=3)


class FakeRun:
    def __init__(self, fail: str) -> None:
        self.id, self.fail = "x", fail
        self.records: list[dict[str, Any]] = []
        self.summary = self

    def _do(self, what: str) -> None:
        if what == self.fail:
            raise RuntimeError(f"{what} broke\nsecond line")

    def define_metric(self, *_: Any, **__: Any) -> None:
        self._do("define")

    def log(self, record: dict[str, Any]) -> None:
        self._do("log")
        self.records.append(record)

    def update(self, values: dict[str, Any]) -> None:
        self._do("summary")

    def finish(self, exit_code: int) -> None:
        self._do("finish")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the wandb module; `fail` names the call that breaks."""
    module = SimpleNamespace(fail="", asked={}, run=None, Settings=lambda **options: options)

    def init(**options: Any) -> FakeRun:
        if module.fail == "init":
            raise OSError("no network")
        module.asked, module.run = options, FakeRun(module.fail)
        return module.run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)  # type: ignore[arg-type]
    return module


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def tracker_in(folder: Path, **options: Any) -> Tracker:
    config = TrackerConfig(**{"name": TrackerName.wandb, "tags": ["draft", "cpu"], **options})
    return make_tracker(config, folder, {"seed": 3}, WHO)


def test_no_tracker_is_asked_for_by_name_or_by_mode(tmp_path: Path) -> None:
    for options in ({"name": TrackerName.none}, {"mode": TrackerMode.disabled}):
        tracker = tracker_in(tmp_path, **options)
        assert isinstance(tracker, NoTracker)
        tracker.log({"step": 1})
        tracker.summarise({})
        tracker.finish(0)
    assert list(tmp_path.iterdir()) == []


def test_group_type_tags_and_axis_are_the_same_words_in_every_paper(tmp_path: Path, fake: SimpleNamespace) -> None:
    tracker = tracker_in(tmp_path, project="p", entity="e")
    asked = fake.asked
    assert (asked["project"], asked["entity"], asked["group"]) == ("p", "e", "paper/experiment")
    assert (asked["job_type"], asked["config"], asked["dir"]) == ("train", {"seed": 3}, tmp_path)
    assert asked["tags"] == ["paper", "experiment", "method", "scale=cpu", "seed=3", "draft", "cpu"]
    tracker.log({"step": 1, "train/outer_loss": 0.5})
    assert fake.run.records == [{"step": 1, "train/outer_loss": 0.5}]


def test_the_id_belongs_to_the_folder_and_survives_a_restart(tmp_path: Path, fake: SimpleNamespace) -> None:
    ids = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        tracker_in(folder)
        ids.append(fake.asked["id"])
    assert ids[0] == ids[1] != ids[2]
    make_tracker(TrackerConfig(name=TrackerName.wandb), tmp_path / "a", {}, WHO, "evaluate")
    assert fake.asked["id"] not in ids and fake.asked["job_type"] == "evaluate"


@pytest.mark.parametrize("fail", ["init", "define", "log", "summary", "finish"])
def test_a_failure_is_logged_once_and_stops_nothing(
    tmp_path: Path, fake: SimpleNamespace, caplog: pytest.LogCaptureFixture, fail: str
) -> None:
    fake.fail = fail
    with caplog.at_level(logging.WARNING):
        tracker = tracker_in(tmp_path)
        for step in range(3):
            tracker.log({"step": step})
        tracker.summarise({"test/accuracy": 1.0})
        tracker.finish(0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the run goes on" in caplog.text and "second line" not in caplog.text


def test_no_wandb_installed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker_in(tmp_path).log({"step": 1})
    assert "W&B failed at start" in caplog.text


def test_auto_is_online_with_a_key_and_offline_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key() and wandb_mode(TrackerMode.auto) == "offline"
    assert wandb_mode(TrackerMode.online) == "offline"  # W&B would stop and ask for a key
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert has_key() and wandb_mode(TrackerMode.auto) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert wandb_mode(TrackerMode.auto) == "online"
    assert wandb_mode(TrackerMode.offline) == "offline"


def test_only_an_online_run_is_resumed_by_wandb(
    tmp_path: Path, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker_in(tmp_path)
    assert (fake.asked["mode"], fake.asked["resume"]) == ("offline", None)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    tracker_in(tmp_path)
    assert (fake.asked["mode"], fake.asked["resume"]) == ("online", "allow")


@pytest.fixture
def wandb() -> Iterator[Any]:
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


def test_wandb_itself_takes_everything_offline(tmp_path: Path, wandb: Any) -> None:
    tracker = tracker_in(tmp_path, mode=TrackerMode.offline, project="project-x")
    for step in (1, 2):
        tracker.log({"step": step, "time": 0.1, "split": "train", "train/outer_loss": 0.5, "cost/none": None})
    tracker.summarise({"test/accuracy": 0.75})
    tracker.finish(0)
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    data = written.read_bytes()
    name = json.loads((tmp_path / "tracker.json").read_text())["train"]
    for word in (
        "project-x",
        "paper/experiment",
        "method seed=3",
        "scale=cpu",
        name,
        "train/outer_loss",
        "test/accuracy",
    ):
        assert word.encode() in data
