"""Where metrics go besides `metrics.jsonl`: nowhere, or Weights & Biases.

`metrics.jsonl` is the truth and this a mirror: whatever W&B does, the run goes on. An offline run that was continued
leaves one `offline-run-*` folder per start; `python -m scripts.dashboards replay` makes one clean W&B run of them.

A W&B run belongs to the group `<paper>/<sweep>`, or `<paper>/<experiment>` if no sweep started it. Its job type is the
method, or `evaluate`. Its history holds the records of `metrics.jsonl`, word for word and in their order, and after
them one row of tables and figures.
"""

import json
import logging
import netrc
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from common.run import rate_record, results
from common.run.files import write_atomic
from common.run.folder import read_records, selection_of
from common.run.results import Results, RunIdentity
from common.run.schema import TrackerConfig, TrackerMode, TrackerName, flat

ID_FILE = "tracker.json"
TRAIN, EVALUATE = "train", "evaluate"
ITEMS_SHOWN = 1000
"""Rows of the table of predictions; `predictions.jsonl` has all."""
LONGEST_TAG, LONGEST_GROUP = 64, 128
"""In characters; W&B refuses longer ones."""
log = logging.getLogger(__name__)


class Tracker(Protocol):
    """A mirror of the metrics."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of `metrics.jsonl`."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Take final values, shown in the table of runs."""

    def attach(self, folder: Path) -> None:
        """Take tables and figures of what is in the run folder."""

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


class WandbRun:
    """One W&B run, one id per run folder and job; any call may raise whatever W&B raises."""

    def __init__(
        self,
        config: TrackerConfig,
        folder: Path,
        settings: Mapping[str, Any],
        identity: RunIdentity,
        environment: Mapping[str, Any],
        *,
        evaluating: bool = False,
        replayed_into: Path | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        """Start.

        Args:
            config: the tracker's own keys.
            folder: the run folder, which holds the run's id and, by default, W&B's files.
            settings: the resolved configuration as plain data.
            identity: gives group, name, job type and tags.
            environment: what `environment.json` says, the sweep included; W&B has it under the config key of that name.
            evaluating: a later evaluation of a trained run, which is a W&B run of its own.
            replayed_into: folder for W&B's files of a run told again from its start. It overwrites an online run of
                the same id, and nothing about this machine goes with it.
            tags: besides those of the identity and the configuration.
        """
        import wandb

        mode = wandb_mode(config.mode)
        again = replayed_into is not None
        self._wandb = wandb
        self._run: Any = wandb.init(
            project=config.project,
            entity=config.entity,
            dir=replayed_into or folder,
            id=run_id(folder, EVALUATE if evaluating else TRAIN),
            resume="allow" if mode == "online" and not again else None,  # offline, W&B starts a new folder anyhow
            mode=mode,
            name=f"{identity.method} seed={identity.seed}",
            group=group_of(identity, environment.get("sweep")),
            job_type=EVALUATE if evaluating else identity.method,
            tags=list(dict.fromkeys([*_tags(identity), *config.tags, *tags])),
            config={**settings, "environment": dict(environment)},
            reinit="create_new",  # never what an earlier run of this process left open
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=60, x_disable_stats=again, x_disable_meta=again
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        log.info("W&B %s, id %s", mode, self._run.id)

    def log(self, record: Mapping[str, Any]) -> None:
        """Send one record; `step` is the x-axis, W&B's own counter is not used."""
        self._run.log(dict(record))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Send final values."""
        self._run.summary.update(dict(values))

    def attach(self, folder: Path) -> None:
        """Send the tables and figures that the files of `folder` give, as one further row."""
        from common.run import figures

        records = read_records(folder)
        media: dict[str, Any] = {}
        if results.finished_hash(folder) is not None and (items := results.read_predictions(folder)):
            media["tables/predictions"] = self._table(items[:ITEMS_SHOWN])
        if (rates := rate_record.read(folder)) is not None:
            media["tables/rates"] = self._table(rates.rows())
            media["plots/rates"] = self._wandb.Image(figures.pixels(figures.rates_map(rates)))
        if (curve := figures.learning_curve(records, selection_of(folder).metric)) is not None:
            media["plots/learning_curve"] = self._wandb.Image(figures.pixels(curve))
        if media:
            self._run.log({"step": max((record["step"] for record in records), default=0), **media})

    def finish(self, exit_code: int) -> None:
        """Close the W&B run."""
        self._run.finish(exit_code=exit_code)

    def _table(self, rows: Iterable[Mapping[str, Any]]) -> Any:
        flattened = [flat(dict(row)) for row in rows]
        columns = list(dict.fromkeys(name for row in flattened for name, value in row.items() if value is not None))
        data = [[_cell(row.get(name)) for name in columns] for row in flattened]
        return self._wandb.Table(columns=columns, data=data, allow_mixed_types=True)


class WandbTracker:
    """A W&B run that never raises: the first failure is logged, later calls do nothing."""

    def __init__(self, start: Callable[[], WandbRun]) -> None:
        self._run: WandbRun | None = None
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
        """Send tables and figures; without them the rest is still worth having."""
        self._do("tables and figures", lambda run: run.attach(folder), last=False)

    def finish(self, exit_code: int) -> None:
        """Close the W&B run."""
        self._do("finish", lambda run: run.finish(exit_code))
        self._run = None

    def _do(self, what: str, call: Callable[[WandbRun], None], *, last: bool = True) -> None:
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
        log.warning("W&B failed at %s (%s: %s); the run goes on", what, type(error).__name__, message)


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
    if config.name is TrackerName.none or config.mode is TrackerMode.disabled:
        return NoTracker()
    return WandbTracker(lambda: WandbRun(config, folder, settings, identity, environment, evaluating=evaluating))


def summary_of(found: Results) -> dict[str, Any]:
    """Final values of a finished run, under the names that tables use."""
    test = {f"test/{name}": interval.value for name, interval in found.test.items()}
    return test | {"cost/wall_seconds": found.wall_seconds, "cost/peak_memory_bytes": found.peak_memory_bytes}


def group_of(identity: RunIdentity, sweep: str | None) -> str:
    """W&B's group: `<paper>/<sweep>`, or `<paper>/<experiment>` of a run that no sweep started."""
    return f"{identity.paper}/{sweep or identity.experiment}"[:LONGEST_GROUP]


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


def run_id(folder: Path, job: str) -> str:
    """The id kept in the run folder, so that it survives restarts, moves and other machines.

    Raises:
        OSError: there is none yet and the folder is not writable.
    """
    ids = _ids(folder)
    if job not in ids:
        ids[job] = secrets.token_hex(8)
        write_atomic(folder / ID_FILE, json.dumps(ids) + "\n")
    return ids[job]


def known_id(folder: Path, job: str) -> str | None:
    """The id in the run folder, None if nothing was sent to W&B yet."""
    return _ids(folder).get(job)


def _ids(folder: Path) -> dict[str, str]:
    path = folder / ID_FILE
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _tags(identity: RunIdentity) -> list[str]:
    named = {"paper": None, "experiment": None, "method": None, "scale": "scale", "seed": "seed"}
    values = asdict(identity)
    tags = [f"{label}={values[key]}" if label else str(values[key]) for key, label in named.items()]
    return [tag[:LONGEST_TAG] for tag in tags if tag]


def _cell(value: Any) -> Any:
    """A table's cell: numbers, text and None as they are, anything else as JSON."""
    return value if value is None or isinstance(value, (str, bool, int, float)) else json.dumps(value)
