"""What an evaluation of a trained run leaves behind: a file in its folder, a run of the tracker, lines in the log."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.files import write_atomic
from common.folder import read_environment
from common.intervals import Interval
from common.results import RunIdentity
from common.run_name import run_name
from common.schema import TrackerConfig
from common.tracker import make_tracker

log = logging.getLogger(__name__)


def report(
    folder: Path,
    split: str,
    changed: Mapping[str, Any],
    metrics: Mapping[str, Interval],
    who: RunIdentity,
    config: Mapping[str, Any],
    tracker: TrackerConfig,
) -> None:
    """Write `evaluation-<split>.json` into the folder of a run; `changed` settings, the run's own left out, enter the
    name: `evaluation-test+inner_steps-6.json`."""
    words = [f"{key}-{'_'.join(map(str, value)) if isinstance(value, list) else value}"
             for key, value in changed.items() if value]  # fmt: skip
    asked = run_name("+".join([split, *words]))
    text = json.dumps({name: asdict(interval) for name, interval in metrics.items()}, indent=2)
    write_atomic(folder / f"evaluation-{asked}.json", f"{text}\n")
    tracked = make_tracker(tracker, folder, dict(config), who, read_environment(folder), evaluating=True)
    tracked.summarise({f"{asked}/{name}": interval.value for name, interval in metrics.items()})
    tracked.finish(0)
    for name, interval in metrics.items():
        log.info("%s/%s %.4f (%.4f to %.4f)", asked, name, interval.value, interval.low, interval.high)
