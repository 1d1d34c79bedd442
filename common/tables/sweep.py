"""A table as a sweep: which runs fill it, which of them are there, what the rest will cost, and how it ended."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from common.run import results
from common.run.entry import explain
from common.run.finished import finished_below
from common.run.folder import CHECKPOINTS
from common.run.progress import duration, shown
from common.run.schema import RunConfig, plain, schema_in
from common.tables.cells import FILE, Overrides, Table, key_of, merged
from common.tables.composing import Compose as Compose
from common.tables.composing import composing as composing


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    overrides: Overrides
    folder: Path
    config_hash: str
    kind: tuple[str, str, str]
    """Experiment, scale and method: what its cost is guessed by."""
    finished_in: Path | None = None
    """Where a run with these settings is finished; maybe another table's folder."""

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        return self.finished_in is not None

    @property
    def begun(self) -> bool:
        """A checkpoint waits to be continued."""
        return not self.finished and any((self.folder / CHECKPOINTS).glob("step-*"))


def expand(
    table: Table, typed: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str]
) -> list[Overrides]:
    """The override lists of a sweep.

    Args:
        table: what to fill.
        typed: one list for each combination of what was typed on the command line, such as the seeds.
        rows: only these; empty means all.
        columns: only these; empty means all.

    A typed key that the table's cells set chooses among them (`method=baseline` runs that row's cells alone); any other
    is set for all.

    Raises:
        UserError: no cell has a typed value.
    """
    jobs = table.jobs(rows, columns)
    found: dict[Overrides, None] = {}
    for words in typed:
        scale = _value(merged(words), "scale") or RunConfig.scale
        here = {frozenset(job) for job, _ in table.at(scale).jobs(rows, columns)}
        chosen = [job for job in jobs if frozenset(job[0]) in here]
        for word in words:
            having = [{key_of(each): each.partition("=")[2] for each in job} for job, _ in jobs]
            values = sorted({each[key_of(word)] for each in having if key_of(word) in each})
            if values:
                wanted = word.partition("=")[2]
                if wanted not in values:
                    raise UserError(f"{word}: the cells of {table.name} have {key_of(word)}={', '.join(values)}")
                chosen = [job for job in chosen if _value(job[0], key_of(word)) in (wanted, None)]
        for job, once in chosen:
            first = typed[0] if once else words
            kept = [word for word in words if key_of(word) != "seed"] + [w for w in first if key_of(w) == "seed"]
            found[merged(kept, job)] = None
    return list(found)


def _value(job: Overrides, key: str) -> str | None:
    return next((word.partition("=")[2] for word in job if key_of(word) == key), None)


def plan(overrides: Iterable[Overrides], compose: Compose) -> list[Job]:
    """Compose every job, which finds mistakes before anything runs, and look for what is there. Of jobs with the same
    settings in other words the first stands for all.

    Raises:
        UserError: a cell does not compose, named by its overrides.
    """
    jobs: dict[str, Job] = {}
    finished: dict[str, Path] | None = None
    for words in shown(list(overrides), "composing runs"):
        config = compose(words)
        folder = _folder_of(config)
        settings = settings_of(config)
        if finished is None:
            finished = finished_below(Path(str(settings["loop"]["root"])))
        digest = results.config_hash(settings, schema_in(config))
        method = (settings.get("method") or {}).get("name", "")
        kind = (str(settings.get("experiment")), str(settings.get("scale")), str(method))
        jobs.setdefault(digest, Job(words, folder, digest, kind, finished.get(digest)))
    return list(jobs.values())


def _folder_of(config: DictConfig) -> Path:
    return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)


def settings_of(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as the run itself will keep it: typed, plain, without Hydra's node.

    Raises:
        UserError: values that its dataclasses refuse.
    """
    own = {str(key): config[key] for key in config if key != "hydra"}
    return {key: plain(OmegaConf.to_object(each) if OmegaConf.is_config(each) else each) for key, each in own.items()}


def keys_of(config: DictConfig) -> dict[str, Any]:
    """Dotted key -> value of what counts in a composed configuration.

    Raises:
        UserError: values that its dataclasses refuse.
    """
    return results.hashed_keys(settings_of(config), schema_in(config))


def seconds_of(jobs: Sequence[Job]) -> dict[Job, float | None]:
    """Expected seconds of each unfinished job: the median of finished runs with its experiment, scale and method, else
    of its scale and method, else of its scale; None where nothing is known.
    """
    known: dict[tuple[str, ...], list[float]] = {}
    roots = {job.folder.parent.parent for job in jobs}
    for folder in {folder for root in roots for folder in finished_below(root).values()}:
        try:
            found = results.read(folder)
        except UserError:
            continue
        for kind in _kinds((found.experiment, found.scale, found.method)):
            known.setdefault(kind, []).append(found.wall_seconds)

    def guess(job: Job) -> float | None:
        return next((statistics.median(known[kind]) for kind in _kinds(job.kind) if kind in known), None)

    return {job: guess(job) for job in jobs if not job.finished}


def _kinds(kind: tuple[str, str, str]) -> list[tuple[str, ...]]:
    experiment, scale, method = kind
    return [(experiment, scale, method), (scale, method), (scale,)]


def describe(name: str, jobs: Sequence[Job]) -> str:
    """What is there and what is left, with its cost as far as earlier runs tell."""
    left = [job for job in jobs if not job.finished]
    begun = sum(job.begun for job in left)
    text = f"{name}: {len(jobs)} runs, {len(jobs) - len(left)} finished, {begun} begun, {len(left) - begun} to start"
    if not left:
        return text
    seconds = seconds_of(jobs)
    known = [value for value in seconds.values() if value is not None]
    if not known:
        return f"{text}; what they cost is not known yet, no run of this scale is finished"
    guessed = sum(known) * len(left) / len(known)
    return f"{text}; about {duration(guessed)} of one process, by the runs that are finished"


def listing(jobs: Sequence[Job]) -> list[str]:
    """A line a job: state and overrides."""
    state = {job: "finished" if job.finished else "begun" if job.begun else "to start" for job in jobs}
    return [f"{state[job]:9} {' '.join(job.overrides)}" for job in jobs]


def ending(jobs: Sequence[Job], errors: Mapping[Overrides, str]) -> list[str]:
    """A line for each job that did not finish: its folder and why."""
    lines = []
    for job in jobs:
        if results.finished_hash(job.folder) == job.config_hash:
            continue  # also where the launcher gave up over another job
        why = errors.get(job.overrides, "it ended without a result (killed, cancelled or still waiting)")
        lines.append(f"{job.folder}: {why}")
    return lines


@contextmanager
def naming(table: Table, words: Overrides) -> Iterator[None]:
    """Within this block a setting of `table` is composed; a mistake in it is named by the cell that has it.

    Raises:
        UserError: the setting does not compose, or its values are refused.
    """
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        cells = [cell for cell in table.cells() if words in (*cell.runs, *cell.minus)]
        where = f"{table.paper}/{FILE}: {table.name}"
        where += f", row {cells[0].row}, column {cells[0].column}" if cells else ""
        raise UserError(f"{where}: {' '.join(words)} does not compose: {explain(error) or error}") from error
