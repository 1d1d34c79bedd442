"""Where metrics go besides `metrics.jsonl`: nowhere, or to one of `common.run.trackers`.

`metrics.jsonl` is the truth and a tracker its mirror: whatever the tracker does, the run goes on. So it does without
one that is not installed; a warning names what to install.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from common.run.results import Results, RunIdentity
from common.run.schema import TrackerConfig, TrackerMode, TrackerName
from common.run.trackers.tensorboard import TensorboardRun
from common.run.trackers.trackio import TrackioRun
from common.run.trackers.wandb_run import WandbRun

SHOWN = {TrackerName.wandb: "W&B", TrackerName.tensorboard: "TensorBoard", TrackerName.trackio: "Trackio"}
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A mirror of the metrics."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of `metrics.jsonl`, whose last line it is."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Take final values."""

    def attach(self, folder: Path) -> None:
        """Take the media of the run folder, and tables and figures where the tracker has a place for them."""

    def finish(self, exit_code: int) -> None:
        """Close; 0 is success."""


class NoTracker:
    """metrics.jsonl is enough."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def attach(self, folder: Path) -> None:
        """Do nothing."""

    def finish(self, exit_code: int) -> None:
        """Do nothing."""


class Mirror:
    """A tracker that never raises: the first failure is logged, later calls do nothing."""

    def __init__(self, name: TrackerName, start: Callable[[], Tracker]) -> None:
        self._name = name
        self._run: Tracker | None = None
        try:
            self._run = start()
        except Exception as error:  # noqa: BLE001
            self._fail("start", error)

    def log(self, record: Mapping[str, Any]) -> None:
        """Send one record."""
        self._do("log", lambda run: run.log(record))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Send final values."""
        self._do("summary", lambda run: run.summarise(values))

    def attach(self, folder: Path) -> None:
        """Send tables, figures and media; without them the rest is still worth having."""
        self._do("tables, figures and media", lambda run: run.attach(folder), last=False)

    def finish(self, exit_code: int) -> None:
        """Close the tracker's run."""
        self._do("finish", lambda run: run.finish(exit_code))
        self._run = None

    def _do(self, what: str, call: Callable[[Tracker], None], *, last: bool = True) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # noqa: BLE001
            self._fail(what, error, last=last)

    def _fail(self, what: str, error: Exception, *, last: bool = True) -> None:
        if last:
            self._run = None
        message = str(error).strip().partition("\n")[0]
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing == self._name and self._name is not TrackerName.wandb:  # which is no extra
            message += f"; pip install -e '.[{self._name}]'"
        log.warning("%s failed at %s (%s: %s); the run goes on", SHOWN[self._name], what, type(error).__name__, message)


def make_tracker(
    config: TrackerConfig,
    folder: Path,
    settings: Mapping[str, Any],
    identity: RunIdentity,
    environment: Mapping[str, Any],
    *,
    evaluating: bool = False,
) -> Tracker:
    """The tracker that `tracker.name` asks for; never raises. Arguments as for `WandbRun`."""

    def start() -> Tracker:
        if config.name is TrackerName.tensorboard:
            return TensorboardRun(folder, evaluating=evaluating)
        if config.name is TrackerName.trackio:
            return TrackioRun(config, folder, settings, identity, environment, evaluating=evaluating)
        return WandbRun(config, folder, settings, identity, environment, evaluating=evaluating)

    if config.name is TrackerName.none or config.mode is TrackerMode.disabled:
        return NoTracker()
    return Mirror(config.name, start)


def summary_of(found: Results) -> dict[str, Any]:
    """Final values of a finished run, under the names that tables use."""
    test = {f"test/{name}": interval.value for name, interval in found.test.items()}
    return test | {"cost/wall_seconds": found.wall_seconds, "cost/peak_memory_bytes": found.peak_memory_bytes}
