"""W&B as a mirror: real in offline mode, and harmless when it fails."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.run.schema import TrackerConfig, TrackerMode, TrackerName
from common.run.tracker import Tracker, make_tracker
from common.run.trackers.names import group_of, known_id
from common.run.trackers.wandb_run import has_key, wandb_mode
from tests import wandb_log
from tests.tracked_run import WHO, finished_folder, write_media

CURVE = "plots/learning_curve"


class FakeRun:
    def __init__(self, fail: str) -> None:
        self.id, self.fail, self.dir = "x", fail, "wandb/offline-run-x/files"
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
    module = SimpleNamespace(fail="", asked={}, run=None, Settings=lambda **options: options, Image=str, Video=str)

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


def tracker_in(folder: Path, sweep: str | None = None, **options: Any) -> Tracker:
    config = TrackerConfig(**{"name": TrackerName.wandb, "tags": ["draft", "cpu"], **options})
    return make_tracker(config, folder, {"seed": 3}, WHO, {"sweep": sweep, "revision": "abc"})


def test_group_type_tags_and_axis_are_the_same_words_in_every_paper(tmp_path: Path, fake: SimpleNamespace) -> None:
    tracker = tracker_in(tmp_path, project="p", entity="e")
    asked = fake.asked
    assert (asked["project"], asked["entity"], asked["group"]) == ("p", "e", "paper/experiment")
    assert (asked["job_type"], asked["dir"]) == ("method", tmp_path)
    assert asked["config"] == {"seed": 3, "environment": {"sweep": None, "revision": "abc"}}
    assert asked["tags"] == ["paper", "experiment", "method", "scale=cpu", "seed=3", "draft", "cpu"]
    tracker.log({"step": 1, "train/outer_loss": 0.5})
    assert fake.run.records == [{"step": 1, "train/outer_loss": 0.5}]


def test_a_run_belongs_to_the_group_of_the_sweep_that_started_it(tmp_path: Path, fake: SimpleNamespace) -> None:
    tracker_in(tmp_path, sweep="table1")
    assert fake.asked["group"] == "paper/table1"
    assert len(group_of(WHO, "x" * 200)) == 128, "W&B refuses longer ones"


def test_the_id_belongs_to_the_folder_and_survives_a_restart(tmp_path: Path, fake: SimpleNamespace) -> None:
    ids = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        tracker_in(folder)
        ids.append(fake.asked["id"])
    assert ids[0] == ids[1] != ids[2]
    assert (known_id(tmp_path / "a", "train"), known_id(tmp_path / "c", "train")) == (ids[0], None)
    make_tracker(TrackerConfig(name=TrackerName.wandb), tmp_path / "a", {}, WHO, {}, evaluating=True)
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


def test_without_tables_and_figures_the_rest_is_still_closed(
    tmp_path: Path, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_in(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("no record\n")
    closed: list[int] = []
    monkeypatch.setattr(fake.run, "finish", lambda exit_code: closed.append(exit_code))
    tracker.attach(tmp_path)
    tracker.finish(0)
    assert "W&B failed at tables, figures and media" in caplog.text and closed == [0]


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


def test_wandb_itself_has_the_run_as_metrics_jsonl_tells_it(tmp_path: Path, wandb: Any) -> None:
    records = finished_folder(tmp_path)
    tracker = tracker_in(tmp_path, sweep="table1", mode=TrackerMode.offline, project="project-x")
    for record in records:
        tracker.log(record)
    tracker.summarise({"test/accuracy": 0.75})
    tracker.attach(tmp_path)
    tracker.finish(0)
    found = wandb_log.only(tmp_path)
    assert found.id == known_id(tmp_path, "train")
    assert (found.project, found.group, found.job_type, found.name) == (
        "project-x", "paper/table1", "method", "method seed=3",
    )  # fmt: skip
    assert found.tags == ["paper", "experiment", "method", "scale=cpu", "seed=3", "draft", "cpu"]
    assert found.config == {"seed": 3, "environment": {"sweep": "table1", "revision": "abc"}}
    *history, media = found.history
    assert history == records
    assert media["step"] == 1 and found.summary["test/accuracy"] == 0.75 and found.exit_code == 0
    kinds = {name: media[f"{name}/_type"] for name in ("tables/predictions", "tables/rates", "plots/rates", CURVE)}
    assert list(kinds.values()) == ["table-file", "table-file", "image-file", "image-file"]


@pytest.mark.parametrize("machine", [False, True])
def test_what_tells_of_the_machine_goes_to_wandb_only_if_asked_for(
    tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch, machine: bool
) -> None:
    import socket

    monkeypatch.setattr(socket, "gethostname", lambda: "node17.example")
    monkeypatch.setattr(sys, "argv", ["/users/ada/code/reckoning/train.py", "loop.root=/users/ada/runs"])
    config = TrackerConfig(name=TrackerName.wandb, mode=TrackerMode.offline, machine=machine)
    settings = {"data": {"files": {"train": "/users/ada/files/train.jsonl"}}, "loop": {"root": "/users/ada/runs"}}
    command = "python /users/ada/code/reckoning/train.py loop.root=/users/ada/runs inner.lr=0.1"
    environment = {"command": command, "hardware": {"host": "node17.example", "cpu": "EPYC"}}
    make_tracker(config, tmp_path, settings, WHO, environment).finish(0)
    wandb.teardown()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert b"EPYC" in written
    assert [secret in written for secret in (b"node17", b"/users/ada")] == [machine, machine]
    if not machine:
        assert b"train.jsonl" in written and b"python -m reckoning.train inner.lr=0.1" in written


def test_a_run_never_goes_on_in_one_that_was_left_open(tmp_path: Path, wandb: Any) -> None:
    """As W&B failed at that one, and the same process has another run to do."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    left_open = tracker_in(tmp_path / "one", mode=TrackerMode.offline)
    tracker_in(tmp_path / "other", mode=TrackerMode.offline).finish(0)
    assert wandb_log.only(tmp_path / "other").id == known_id(tmp_path / "other", "train")
    left_open.finish(1)


def test_tables_hold_predictions_and_rates(tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_folder(tmp_path)
    monkeypatch.setattr("common.run.trackers.wandb_run.ITEMS_SHOWN", 2)
    tracker = tracker_in(tmp_path, mode=TrackerMode.offline)
    tracker.attach(tmp_path)
    tracker.finish(0)
    wandb_log.only(tmp_path)
    tables = {
        path.name.partition("_")[0]: json.loads(path.read_text()) for path in (tmp_path / "wandb").rglob("*.table.json")
    }
    assert tables["predictions"]["columns"] == ["id", "group", "accuracy", "depth", "recall"]
    assert tables["predictions"]["data"] == [["q0", "t0", 0, 2, None], ["q1", "t0", 1, 2, 0.75]]
    assert tables["rates"]["columns"] == ["layer", "name", "inner_step", "start", "tested"]
    assert tables["rates"]["data"] == [["a", "a.weight", 1, 0.1, 0.1], ["a", "a.weight", 2, 0.2, 0.2]]


def test_media_are_images_and_videos_of_their_own_bytes(
    tmp_path: Path, wandb: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finished_folder(tmp_path)
    written = write_media(tmp_path)
    (tmp_path / "media" / "long.mp4").write_bytes(bytes(20_001))
    monkeypatch.setattr("common.run.media.MOST_TRACKED_EACH", 20_000)
    tracker = tracker_in(tmp_path, mode=TrackerMode.offline)
    tracker.attach(tmp_path)
    tracker.finish(0)
    row = wandb_log.only(tmp_path).history[-1]
    kinds = {
        key.removesuffix("/_type"): kind for key, kind in row.items() if key.startswith("media/") and "_type" in key
    }
    assert kinds == {"media/frame": "image-file", "media/return-ep2": "video-file", "media/return-ep10": "video-file"}
    for name, content in written.items():
        assert wandb_log.file_of(tmp_path, row, f"media/{Path(name).stem}").read_bytes() == content
    assert "long.mp4 (20 kB) is not sent to the tracker: at most 20 kB a file and 100.0 MB a run" in caplog.text
