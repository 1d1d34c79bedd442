"""TensorBoard, read back by its own reader."""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.run.folder import read_records
from common.run.results import Interval
from common.run.run import Run
from common.run.schema import Device, LoopConfig, RuntimeConfig, TrackerConfig, TrackerName
from common.run.tracker import Tracker, make_tracker
from tests.tracked_run import WHO, finished_folder, write_media

pytest.importorskip("tensorboard", reason="needs the extra: pip install -e '.[tensorboard]'")


def tracker_in(folder: Path, *, evaluating: bool = False) -> Tracker:
    return make_tracker(TrackerConfig(TrackerName.tensorboard), folder, {}, WHO, {}, evaluating=evaluating)


def read(folder: Path, job: str = "train") -> Any:
    """All events of a job."""
    from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / job), size_guidance={SCALARS: 0, IMAGES: 0})
    return events.Reload()


def scalars(events: Any) -> set[tuple[str, int, float]]:
    return {(tag, each.step, each.value) for tag in events.Tags()["scalars"] for each in events.Scalars(tag)}


def expected(records: list[dict[str, Any]]) -> set[tuple[str, int, float]]:
    """The metrics of records; TensorBoard holds them in float32."""
    return {
        (name, record["step"], float(np.float32(value)))
        for record in records
        for name, value in record.items()
        if "/" in name and value is not None
    }


def test_a_run_is_there_as_metrics_jsonl_tells_it(tmp_path: Path) -> None:
    records = finished_folder(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    tracker = tracker_in(tmp_path)
    for record in records:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        tracker.log(record)
    tracker.summarise({"test/accuracy": 0.75, "cost/wall_seconds": 2.0})
    tracker.finish(0)
    events = read(tmp_path)
    assert scalars(events) == expected(records) | {("cost/wall_seconds", 1, 2.0)}
    clock = {each.step: each.wall_time for tag in ("dev/accuracy", "train/outer_loss") for each in events.Scalars(tag)}
    assert clock[1] - clock[0] == pytest.approx(1.25), "seconds of the run between its records"
    assert len(events.Scalars("test/accuracy")) == 1


def test_a_run_that_was_continued_has_every_step_once(tmp_path: Path) -> None:
    """Steps after the checkpoint were logged before the crash and come again; metrics.jsonl is cut, and so is this."""
    config = TrackerConfig(TrackerName.tensorboard)
    loop = LoopConfig(save_every=2, save_seconds=0)
    for start, crash_in in enumerate((3, 5, None)):
        crash = pytest.raises(ZeroDivisionError) if crash_in else nullcontext()
        with crash, Run(tmp_path, {"seed": 3}, RuntimeConfig(device=Device.cpu), config, loop, WHO) as run:
            for step in run.steps(6):
                run.log(step, "train", outer_loss=1 / step, start=start)
                if step == crash_in:
                    raise ZeroDivisionError
                run.save_if_due(step)
            run.finish({"accuracy": Interval(0.75, 4, 0.5, 1.0)})
    events, records = read(tmp_path), read_records(tmp_path)
    assert [each.step for each in events.Scalars("train/outer_loss")] == [1, 2, 3, 4, 5, 6]
    assert {found for found in scalars(events) if not found[0].startswith("cost/")} == expected(records)
    assert events.Tags()["images"] == [] and len(list((tmp_path / "tensorboard" / "train").iterdir())) == 1


def test_pictures_are_shown_and_videos_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_media(tmp_path)
    tracker = tracker_in(tmp_path)
    tracker.log({"step": 7, "train/outer_loss": 1.0})
    with caplog.at_level(logging.INFO):
        tracker.attach(tmp_path)
    tracker.finish(0)
    events = read(tmp_path)
    assert events.Tags()["images"] == ["media/frame", "media/return-ep2"]
    (image,) = events.Images("media/return-ep2")
    assert (image.step, image.width, image.height) == (7, 8, 6)
    assert image.encoded_image_string == written["return-ep2.gif"], "all of its frames"
    assert "TensorBoard shows no mp4" in caplog.text and "return-ep10.mp4" in caplog.text


def test_evaluations_stand_beside_the_training_and_keep_one_another(tmp_path: Path) -> None:
    tracker = tracker_in(tmp_path)
    tracker.log({"step": 1, "train/outer_loss": 1.0})
    tracker.finish(0)
    for split, value in (("dev", 0.5), ("test", 0.25)):
        tracker = tracker_in(tmp_path, evaluating=True)
        tracker.summarise({f"{split}/accuracy": value})
        tracker.finish(0)
    assert scalars(read(tmp_path, "evaluate")) == {("dev/accuracy", 0, 0.5), ("test/accuracy", 0, 0.25)}
    assert scalars(read(tmp_path)) == {("train/outer_loss", 1, 1.0)}
