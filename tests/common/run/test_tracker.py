"""What holds for every tracker: asked for by name, harmless without its library, and no key ignored in silence."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.run.schema import TrackerConfig, TrackerMode, TrackerName
from common.run.tracker import NoTracker, make_tracker
from tests.tracked_run import WHO


@pytest.mark.parametrize("options", [{}, {"name": TrackerName.wandb, "mode": TrackerMode.disabled}])
def test_no_tracker_is_asked_for_by_name_or_by_mode(tmp_path: Path, options: dict[str, Any]) -> None:
    tracker = make_tracker(TrackerConfig(**options), tmp_path, {"seed": 3}, WHO, {})
    assert isinstance(tracker, NoTracker)
    tracker.log({"step": 1})
    tracker.summarise({})
    tracker.attach(tmp_path)
    tracker.finish(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, shown, remedy",
    [("wandb", "W&B", ""), ("tensorboard", "TensorBoard", "[tensorboard]"), ("trackio", "Trackio", "[trackio]")],
)
def test_without_its_library_the_run_goes_on_with_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    shown: str,
    remedy: str,
) -> None:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with caplog.at_level(logging.WARNING):
        tracker = make_tracker(TrackerConfig(TrackerName[name]), tmp_path, {}, WHO, {})
        tracker.log({"step": 1, "train/outer_loss": 0.5})
        tracker.attach(tmp_path)
        tracker.finish(0)
    (line,) = caplog.messages
    assert line.startswith(f"{shown} failed at start (ModuleNotFoundError: ") and line.endswith("; the run goes on")
    assert (f"pip install -e '.{remedy}'" in line) is bool(remedy)


@pytest.mark.parametrize(
    "name, options, message",
    [
        (
            "none",
            {"tags": ["draft"]},
            r"tracker.tags=\['draft'\] changes nothing with tracker=none.*use tracker=wandb$",
        ),
        ("tensorboard", {"project": "mine"}, "tracker.project=mine .*use tracker=wandb or tracker=trackio$"),
        ("tensorboard", {"mode": TrackerMode.offline}, "tracker.mode=offline .*tracker=tensorboard: .*tracker=wandb$"),
        ("trackio", {"entity": "team"}, "tracker.entity=team changes nothing with tracker=trackio"),
    ],
)
def test_a_key_that_the_tracker_would_ignore_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrackerConfig(TrackerName[name], **options)
    TrackerConfig(TrackerName.wandb, **options)
