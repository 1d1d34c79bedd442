"""Run folders -> one clean W&B run each, told again from `metrics.jsonl`.

    python -m scripts.dashboards replay                             every run below runs/, offline, into wandb-replay/
    python -m scripts.dashboards replay runs/reckoning/table1 runs/reckoning/clutrr --into elsewhere
    python -m scripts.dashboards replay runs/reckoning/table1 --mode online --project mine --entity team

An offline run that was continued has one W&B folder per start, and syncing them one after the other keeps the last one
only; a run without `tracker=wandb` has none. This makes one of either. A folder may be a run or hold runs at any depth,
finished or still running; a run that is not finished gets the tag `unfinished`. The W&B id belongs to the run folder
(`tracker.json`): replaying again replaces what the last replay wrote, and online it overwrites the run of that id.
A run lands in the W&B project
that its settings name (`tracker.project`) unless `--project` names another; account and mode are the command line's.
Afterwards `wandb sync wandb-replay/wandb/offline-run-*` uploads what was written offline.
"""

import argparse
import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run import folder as folders
from common.run import results
from common.run.finished import run_folders
from common.run.results import RunIdentity
from common.run.schema import TrackerConfig, TrackerMode, TrackerName
from common.run.tracker import summary_of
from common.run.trackers.names import TRAIN, run_id
from common.run.trackers.wandb_run import WandbRun, has_key
from scripts.words import mistakes_told

UNFINISHED = "unfinished"
FAILED = 1


def runs_below(places: Iterable[Path]) -> list[Path]:
    """Run folders in or below `places`, each once, in the order of their names.

    Raises:
        UserError: a place does not exist, or there is no run in any.
    """
    found: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such folder; give run folders, or folders that hold them")
        found |= {*run_folders(place)}
    if not found:
        raise UserError(f"{', '.join(map(str, places))}: no run there; a run folder holds {folders.CONFIG}")
    return sorted(found)


def identity_of(folder: Path, environment: dict[str, Any]) -> RunIdentity:
    """What the run is a run of.

    Raises:
        UserError: neither `environment.json` nor `results.json` says it.
    """
    names = RunIdentity.__dataclass_fields__
    if isinstance(said := environment.get("run"), dict) and names.keys() <= said.keys():
        return RunIdentity(**{name: said[name] for name in names})
    if results.finished_hash(folder) is None:
        raise UserError(f"{folder}: begun by an older version; run its command again, and replay it when it is done")
    found = results.read(folder)
    return RunIdentity(**{name: getattr(found, name) for name in names})


def replay(folder: Path, config: TrackerConfig, into: Path, project: str | None = None) -> int:
    """Tell the run in `folder` to W&B from its start, into `project`, by default the one that its own settings name;
    returns the number of records.

    Raises:
        UserError: a file of the run is missing or damaged, or `into` is the run folder.
    """
    settings, environment = folders.read_config(folder), folders.read_environment(folder)
    identity, records = identity_of(folder, environment), folders.read_records(folder)
    finished = results.finished_hash(folder) is not None
    said = settings.get("tracker") or {}
    tags = [*map(str, said.get("tags") or []), *([] if finished else [UNFINISHED])]
    if project is None:  # of the rest of its tracker's settings nothing counts: account and mode are the caller's
        own = str(said.get("project", config.project))
        config = dataclasses.replace(config, project=own if re.fullmatch(r"[\w.-]{1,128}", own) else config.project)
    if into.resolve() == folder.resolve():
        raise UserError(f"--into {into}: this is the run's own folder, where W&B keeps what it tracked; name another")
    for old in (into / "wandb").glob(f"*run-*-{run_id(folder, TRAIN)}"):
        shutil.rmtree(old)
    into.mkdir(parents=True, exist_ok=True)
    run = WandbRun(config, folder, settings, identity, environment, replayed_into=into, tags=tags)
    try:
        for record in records:
            run.log(record)
        if finished:
            run.summarise(summary_of(results.read(folder)))
        run.attach(folder)
    except BaseException:
        run.finish(FAILED)
        raise
    run.finish(0)
    return len(records)


def replay_all(
    found: Sequence[Path], config: TrackerConfig, into: Path, say: Callable[[str], object], project: str | None = None
) -> dict[Path, str]:
    """Replay every run, going on after failures; returns what went wrong by run."""
    failed: dict[Path, str] = {}
    for place, folder in enumerate(found, start=1):
        try:
            outcome = f"{replay(folder, config, into, project)} records"
        except Exception as error:  # noqa: BLE001 - W&B raises what it likes
            failed[folder] = outcome = _reason(error)
        say(f"{place}/{len(found)} {folder}: {outcome}")
    return failed


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def main(words: Sequence[str]) -> None:
    """Replay, and name at the end what could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.dashboards replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], help="default: runs")
    parser.add_argument("--into", type=Path, default=Path("wandb-replay"), help="folder for W&B's files")
    parser.add_argument("--mode", choices=("offline", "online"), default="offline", help="default: offline")
    parser.add_argument("--project", help="default: the one that each run's own settings name")
    parser.add_argument("--entity", help="W&B user or team; default: the account's")
    given = parser.parse_args(words)
    project = given.project or TrackerConfig.project
    config = TrackerConfig(TrackerName.wandb, TrackerMode(given.mode), project, given.entity)
    with mistakes_told():
        if config.mode is TrackerMode.online and not has_key():
            raise UserError("--mode online: there is no W&B key; run `wandb login`, or leave it offline")
        found = runs_below(given.folders)
    failed = replay_all(found, config, given.into, lambda line: sys.stderr.write(f"{line}\n"), given.project)
    sys.stdout.write(f"{len(found) - len(failed)} of {len(found)} runs replayed {given.mode} into {given.into}\n")
    if failed:
        sys.stderr.writelines(f"not replayed: {folder}: {reason}\n" for folder, reason in failed.items())
        raise SystemExit(FAILED)
