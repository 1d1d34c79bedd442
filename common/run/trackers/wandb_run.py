"""A run on Weights & Biases.

An offline run that was continued leaves one `offline-run-*` folder per start; of these `python -m scripts.dashboards
replay` makes one clean W&B run.

A W&B run belongs to the group `<paper>/<sweep>`, or `<paper>/<experiment>` if no sweep started it. Its job type is the
method, or `evaluate`. Its history holds the records of `metrics.jsonl`, word for word and in their order, and after
them one row of tables, figures and media.
"""

import json
import logging
import netrc
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from common.run import media, rate_record, results
from common.run.folder import read_records, selection_of
from common.run.items import read_items
from common.run.private import told
from common.run.results import RunIdentity
from common.run.schema import TrackerConfig, TrackerMode, flat
from common.run.trackers.names import EVALUATE, TRAIN, group_of, run_id

ITEMS_SHOWN = 1000
"""Rows of the table of predictions; `predictions.jsonl` has all."""
LONGEST_TAG = 64
"""In characters; W&B refuses longer ones."""
log = logging.getLogger(__name__)


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
        self._offline = mode == "offline" and not again  # a replay names all of its runs at its end
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
            config=told(identity.paper, settings, environment, machine=config.machine),
            reinit="create_new",  # never what an earlier run of this process left open
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=60,
                x_disable_stats=again,
                x_disable_meta=again or not config.machine,
                host=None if config.machine and not again else "",  # None is this machine's
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
        """Send the tables, figures and media that the files of `folder` give, as one further row."""
        from common.run import figures

        records = read_records(folder)
        row: dict[str, Any] = {}
        if results.finished_hash(folder) is not None and (items := read_items(folder)):
            row["tables/predictions"] = self._table(item.row() for item in items[:ITEMS_SHOWN])
        if (rates := rate_record.read(folder)) is not None:
            row["tables/rates"] = self._table(rates.rows())
            row["plots/rates"] = self._wandb.Image(figures.pixels(figures.rates_map(rates)))
        if (curve := figures.learning_curve(records, selection_of(folder).metric)) is not None:
            row["plots/learning_curve"] = self._wandb.Image(figures.pixels(curve))
        kinds = {"image": self._wandb.Image, "video": self._wandb.Video}
        row |= {medium.key: kinds[medium.kind](str(medium.path)) for medium in media.for_tracker(folder)}
        if row:
            self._run.log({"step": max((record["step"] for record in records), default=0), **row})

    def finish(self, exit_code: int) -> None:
        """Close the W&B run."""
        self._run.finish(exit_code=exit_code)
        if self._offline:
            place = shlex.quote(str(Path(self._run.dir).parent))
            log.info("W&B was offline: `wandb sync %s` uploads the run", place)

    def _table(self, rows: Iterable[Mapping[str, Any]]) -> Any:
        flattened = [flat(dict(row)) for row in rows]
        columns = list(dict.fromkeys(name for row in flattened for name, value in row.items() if value is not None))
        data = [[_cell(row.get(name)) for name in columns] for row in flattened]
        return self._wandb.Table(columns=columns, data=data, allow_mixed_types=True)


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


def _tags(identity: RunIdentity) -> list[str]:
    named = {"paper": None, "experiment": None, "method": None, "scale": "scale", "seed": "seed"}
    values = asdict(identity)
    tags = [f"{label}={values[key]}" if label else str(values[key]) for key, label in named.items()]
    return [tag[:LONGEST_TAG] for tag in tags if tag]


def _cell(value: Any) -> Any:
    """A table's cell: numbers, text and None as they are, anything else as JSON."""
    return value if value is None or isinstance(value, (str, bool, int, float)) else json.dumps(value)
