"""Evaluations: problems in batches, and what is left behind in a run's folder, the tracker and the log."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from common.run.entry import in_sweep
from common.run.files import write_atomic
from common.run.folder import read_config, read_environment
from common.run.progress import Progress
from common.run.results import Interval, RunIdentity, finished_hash
from common.run.run_name import file_name
from common.run.schema import TrackerConfig, TrackerMode, TrackerName
from common.run.tracker import SHOWN, make_tracker

UNFINISHED = "unfinished"
"""In the name of an evaluation whose run goes on."""
log = logging.getLogger(__name__)
P = TypeVar("P")
A = TypeVar("A")


def in_batches(
    ask: Callable[[Sequence[P]], Sequence[A]],
    problems: Sequence[P],
    size: int,
    *,
    load: Callable[[P], Any] | None = None,
    quiet: bool = False,
) -> list[A]:
    """What `ask` says of every problem, in their order, asked `size` at a time; with `load`, problems of like load
    share a batch, so that little of it is padding. Shows progress unless `quiet`.
    """
    order = list(range(len(problems)))
    if load is not None:
        loads = [load(problem) for problem in problems]
        order.sort(key=lambda place: loads[place])
    found: dict[int, A] = {}
    with Progress(0, len(problems), bar=False if quiet or in_sweep() else None, name="answers") as progress:
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found |= zip(batch, ask([problems[place] for place in batch]), strict=True)
            if not quiet:
                progress.update(len(found))
    return [found[place] for place in range(len(problems))]


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
    name: `evaluation-test+inner_steps-6.json`. Of a run that is not finished it is `evaluation-test+unfinished.json`,
    and the log says so: its weights are the best so far. The tracker is not the run's, and the log says that, too, of a
    run that had one."""
    words = [f"{key}-{'_'.join(map(str, value)) if isinstance(value, list) else value}"
             for key, value in changed.items() if value]  # fmt: skip
    if finished_hash(folder) is None:
        words.append(UNFINISHED)
        log.warning("%s is not finished: these are the numbers of its best weights so far", folder)
    asked = file_name("+".join([split, *words]))
    if tracker.name is TrackerName.none and (add := _tracked_by(folder)):
        log.warning("%s was tracked and this evaluation is not; to track it add %s", folder, " ".join(add))
    text = json.dumps({name: asdict(interval) for name, interval in metrics.items()}, indent=2)
    write_atomic(folder / f"evaluation-{asked}.json", f"{text}\n")
    tracked = make_tracker(tracker, folder, dict(config), who, read_environment(folder), evaluating=True)
    tracked.summarise({f"{asked}/{name}": interval.value for name, interval in metrics.items()})
    tracked.finish(0)
    for name, interval in metrics.items():
        log.info("%s/%s %.4f (%.4f to %.4f)", asked, name, interval.value, interval.low, interval.high)


def _tracked_by(folder: Path) -> list[str]:
    """The words that give an evaluation the tracker of its run; none where it had none."""
    had = read_config(folder).get("tracker")
    if not isinstance(had, dict) or had.get("name") not in list(SHOWN) or had.get("mode") == TrackerMode.disabled:
        return []
    usual = vars(TrackerConfig())
    own = [key for key in ("project", "entity") if had.get(key, usual[key]) != usual[key]]
    return [f"tracker={had['name']}", *(f"tracker.{key}={had[key]}" for key in own)]
