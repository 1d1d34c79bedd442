"""Trackio, read back from its own database."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from common.run.schema import TrackerConfig, TrackerName
from common.run.tracker import Tracker, make_tracker
from tests.tracked_run import WHO, finished_folder, write_media

pytest.importorskip("trackio", reason="needs the extra: pip install -e '.[trackio]'")
PROJECT = "project-x"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of this test alone; Trackio reads where it lies when it is imported."""
    import trackio  # noqa: F401

    folder = tmp_path / "trackio"
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        for constant, value in (("TRACKIO_DIR", folder), ("MEDIA_DIR", folder / "media")):
            if hasattr(sys.modules[name], constant):
                monkeypatch.setattr(f"{name}.{constant}", value)
    return folder


def tracker_in(folder: Path, *, evaluating: bool = False) -> Tracker:
    config = TrackerConfig(TrackerName.trackio, project=PROJECT)
    return make_tracker(config, folder, {"seed": 3}, WHO, {"sweep": "table1"}, evaluating=evaluating)


def rows(name: str) -> list[dict[str, Any]]:
    """What the run's table of metrics holds, without Trackio's own clock."""
    from trackio.sqlite_storage import SQLiteStorage

    return [{k: v for k, v in row.items() if k != "timestamp"} for row in SQLiteStorage.get_logs(PROJECT, name)]


def names() -> list[str]:
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage.get_runs(PROJECT)


def test_a_run_is_there_as_metrics_jsonl_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    (tmp_path / "run").mkdir()
    records = finished_folder(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    tracker = tracker_in(tmp_path / "run")
    for record in records:
        tracker.log(record)
    tracker.summarise({"test/accuracy": 0.75, "cost/wall_seconds": 2.0})
    tracker.finish(0)
    (name,) = names()
    assert name.startswith("method seed=3 train ")
    told = [{k: v for k, v in record.items() if (k == "step" or "/" in k) and v is not None} for record in records]
    assert rows(name) == [*told, {"step": 1, "cost/wall_seconds": 2.0}]
    config = SQLiteStorage.get_run_config(PROJECT, name)
    assert (config["seed"], config["environment"], config["_Group"]) == (3, {"sweep": "table1"}, "paper/table1")
    assert capsys.readouterr().out == ""


def test_a_continued_run_has_every_step_once_and_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for steps in ([1, 2, 3, 4], [1, 2, 3, 5]):
        before, first, *rest = [{"step": step, "train/outer_loss": float(step)} for step in steps]
        file.write_text(json.dumps(before) + "\n" + json.dumps(first) + "\n")
        tracker = tracker_in(tmp_path)
        for record in (first, *rest):
            tracker.log(record)
        tracker.finish(1)
    (name,) = names()
    assert [row["step"] for row in rows(name)] == [1, 2, 3, 5]


def test_media_are_images_and_videos_of_their_own_bytes(tmp_path: Path, place: Path) -> None:
    written = write_media(tmp_path)
    tracker = tracker_in(tmp_path)
    tracker.log({"step": 7, "train/outer_loss": 1.0})
    tracker.attach(tmp_path)
    tracker.finish(0)
    (name,) = names()
    shown = rows(name)[-1]
    assert shown.pop("step") == 7
    kinds = {key: value["_type"].partition(".")[2] for key, value in shown.items()}
    assert kinds == {"media/frame": "image", "media/return-ep2": "video", "media/return-ep10": "video"}
    for file, content in written.items():
        assert (place / "media" / shown[f"media/{Path(file).stem}"]["file_path"]).read_bytes() == content


def test_evaluations_are_a_run_beside_the_training(tmp_path: Path) -> None:
    for split, value in (("dev", 0.5), ("test", 0.25)):
        tracker = tracker_in(tmp_path, evaluating=True)
        tracker.summarise({f"{split}/accuracy": value})
        tracker.finish(0)
    (name,) = names()
    assert rows(name) == [{"step": 0, "dev/accuracy": 0.5}, {"step": 0, "test/accuracy": 0.25}]
