"""Where metrics go besides `metrics.jsonl`: nowhere, or Weights & Biases.

`metrics.jsonl` is the truth and this a mirror: whatever W&B does, the run goes on. An offline run that was continued
leaves one `offline-run-*` folder per start; replay `metrics.jsonl` into one before syncing.
"""

import json
import logging
import netrc
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from common.files import write_atomic
from common.results import RunIdentity
from common.schema import TrackerConfig, TrackerMode, TrackerName

ID_FILE = "tracker.json"
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A mirror of the metrics."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of `metrics.jsonl`."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Take final values, shown in the table of runs."""

    def finish(self, exit_code: int) -> None:
        """Close; 0 is success."""


class NoTracker:
    """metrics.jsonl is enough."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, exit_code: int) -> None:
        """Do nothing."""


class WandbTracker:
    """A W&B run, one id per run folder. The first failure is logged, later calls do nothing."""

    def __init__(
        self, config: TrackerConfig, folder: Path, settings: Mapping[str, Any], identity: RunIdentity, job_type: str
    ) -> None:
        self._run: Any = None
        try:
            self._run = _start(config, folder, settings, identity, job_type)
        except Exception as error:  # noqa: BLE001
            self._fail("start", error)

    def log(self, record: Mapping[str, Any]) -> None:
        """Send one record; `step` is the x-axis, W&B's own counter is not used."""
        self._do("log", lambda run: run.log(dict(record)))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Send final values."""
        self._do("summary", lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int) -> None:
        """Close the W&B run."""
        self._do("finish", lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _do(self, what: str, call: Any) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # noqa: BLE001
            self._fail(what, error)

    def _fail(self, what: str, error: Exception) -> None:
        self._run = None
        message = str(error).strip().partition("\n")[0]
        log.warning("W&B failed at %s (%s: %s); the run goes on", what, type(error).__name__, message)


def make_tracker(
    config: TrackerConfig, folder: Path, settings: Mapping[str, Any], identity: RunIdentity, job_type: str = "train"
) -> Tracker:
    """The tracker that `tracker.name` asks for; never raises.

    Args:
        config: the tracker's own keys.
        folder: the run folder, which holds W&B's files and the run's id.
        settings: the resolved configuration as plain data.
        identity: gives group, name and tags.
        job_type: train or evaluate.
    """
    if config.name is TrackerName.none or config.mode is TrackerMode.disabled:
        return NoTracker()
    return WandbTracker(config, folder, settings, identity, job_type)


def wandb_mode(mode: TrackerMode) -> Literal["online", "offline"]:
    """`auto` becomes online with an API key and offline without; online without a key would stop and ask for one."""
    if mode is TrackerMode.offline:
        return "offline"
    if has_key():
        return "online"
    if mode is TrackerMode.online:
        log.warning("tracker.mode=online, but there is no W&B key (WANDB_API_KEY or netrc): tracking offline")
    return "offline"


def has_key() -> bool:
    """Is there an API key, in WANDB_API_KEY or in the netrc file for W&B's host?"""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _start(
    config: TrackerConfig, folder: Path, settings: Mapping[str, Any], identity: RunIdentity, job_type: str
) -> Any:
    import wandb

    mode = wandb_mode(config.mode)
    run = wandb.init(
        project=config.project,
        entity=config.entity,
        dir=folder,
        id=_run_id(folder, job_type),
        resume="allow" if mode == "online" else None,  # offline resume is not resume: W&B starts a new folder
        mode=mode,
        name=f"{identity.method} seed={identity.seed}",
        group=f"{identity.paper}/{identity.experiment}",
        job_type=job_type,
        tags=list(dict.fromkeys([*_tags(identity), *config.tags])),
        config=dict(settings),
        settings=wandb.Settings(silent=True, console="off", init_timeout=60),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    log.info("W&B %s, id %s", mode, run.id)
    return run


def _tags(identity: RunIdentity) -> list[str]:
    """W&B refuses tags beyond 64 characters."""
    named = {"paper": None, "experiment": None, "method": None, "scale": "scale", "seed": "seed"}
    values = asdict(identity)
    tags = [f"{label}={values[key]}" if label else str(values[key]) for key, label in named.items()]
    return [tag[:64] for tag in tags if tag]


def _run_id(folder: Path, job_type: str) -> str:
    """The id kept in the run folder, so that it survives restarts, moves and other machines."""
    path = folder / ID_FILE
    ids: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    if job_type not in ids:
        ids[job_type] = secrets.token_hex(8)
        write_atomic(path, json.dumps(ids) + "\n")
    return ids[job_type]
