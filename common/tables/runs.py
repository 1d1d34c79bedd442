"""Run folders: what is finished, what stands in it, and a metric of one run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run import folder as folders
from common.run import results
from common.run.finished import run_folders
from common.run.items import Item, read_items, read_of_all, slice_of
from common.run.private import as_typed
from common.run.progress import shown
from common.run.schema import schema_of
from common.run.stored import stored_config
from common.tables.cells import Measure, Role
from common.tables.damaged import left_out, reading
from common.tables.estimates import Jackknife, Scores
from common.tables.published import Method, Paper, known

MAY_DIFFER = ("method.", "inner.", "outer.", "evaluation.")
"""What runs of one table may differ in besides the seed; rows that differ in more than their method say in what."""


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: results.Results
    config: dict[str, Any]
    keys: dict[str, Any]
    """What its hash covers, by dotted key, but for the seed."""

    @property
    def paper(self) -> Paper:
        """What its paper says of methods and rules."""
        return known(self.results.paper)

    @property
    def method(self) -> Method:
        """What its method stands for."""
        return self.paper.method(self.results.method)

    @cached_property
    def typed(self) -> Any:
        """Its configuration, as an object of its schema.

        Raises:
            DamagedRun: it is damaged, or not of this version.
        """
        with reading(self.folder):
            return stored_config(self.folder, schema_of(self.results.paper, self.config))

    @property
    def of_rules(self) -> bool:
        """Whether its metrics are rules, which know nothing but data."""
        return self.method.role is Role.rule

    @property
    def of_method(self) -> bool:
        """Whether a method made it, and not a study with nothing to answer, such as one of run time."""
        return "method" in self.config

    @property
    def selected_by(self) -> tuple[str, Measure]:
        """The metric of the dev split that chose its weights, and how it is read."""
        with reading(self.folder):
            chosen = folders.selection_of(self.folder)
        return chosen.metric, replace(self.paper.measure(chosen.metric), higher_is_better=chosen.higher_is_better)

    @property
    def items(self) -> list[Item]:
        """Its test items.

        Raises:
            DamagedRun: they cannot be read.
        """
        with reading(self.folder):
            return read_items(self.folder)

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all runs of a table have in common."""
        if self.of_rules:
            return {key: value for key, value in self.keys.items() if key.startswith("data.")}
        return {key: value for key, value in self.keys.items() if not key.startswith(MAY_DIFFER)}

    @property
    def own(self) -> dict[str, Any]:
        """The settings that tell the rows of a table apart."""
        if self.of_rules:
            return {}
        return {key: value for key, value in self.keys.items() if key.startswith(MAY_DIFFER)}


def scores_of(run: Run, metric: str) -> Scores | Jackknife | None:
    """A metric of one run by group: summed over items, or by leaving out one after the other where only all items
    together have it; None for one that is neither, such as a time.

    `<metric>@<slice>_<value>` counts the items with that value alone: `accuracy@length_2048`. Items of a further pass
    over the test split, which changed a slice, count only where that slice chooses.

    Raises:
        DamagedRun: they cannot be read.
    """
    with reading(run.folder):
        if (whole := read_of_all(run.folder).get(metric)) is not None:
            return Jackknife.of(whole.value, whole.without, whole.count)
        name, chosen, value = slice_of(metric)
        items = [item for item in read_items(run.folder) if name in item.scores and item.counts(chosen, value)]
        found = Scores.of((item.group, *item.scores[name]) for item in items)
        return found if found.groups else None


def read_runs(root: Path, paper: str | None, experiment: str | None) -> tuple[list[Run], list[str]]:
    """Finished runs below `root`, and a line for each that is not finished. A run is left out, and named on standard
    error, if a file of it is damaged or its settings are not those that its results were made with.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"root={root}: no such folder; give the folder of the runs (loop.root of the training)")
    finished, unfinished = [], []
    for folder in shown(run_folders(root), "reading runs"):
        try:
            if (run := read_run(folder)) is None:
                if paper in (None, *folder.parts) and experiment in (None, _experiment(folder)):
                    unfinished.append(f"{folder}: {command_of(folder)}")
            elif paper in (None, run.results.paper) and experiment in (None, run.results.experiment):
                finished.append(run)
        except UserError as error:
            if paper in (None, *folder.parts):
                left_out(error)
    return finished, unfinished


def read_run(folder: Path) -> Run | None:
    """The run in `folder`; None: it is not finished.

    Raises:
        DamagedRun: a file of it is damaged, or its settings are not those that its results were made with.
    """
    with reading(folder):
        if not (folder / results.FINISHED).is_file() or not (folder / results.RESULTS).is_file():
            return None
        found, config = results.read(folder), folders.read_config(folder)
        folders.selection_of(folder)
        command_of(folder)
        if not found.paper.isidentifier():
            raise ValueError(f"paper={found.paper}")
        schema = schema_of(found.paper, config)
        results.check_hash(folder, config, schema, found)
        keys = {key: value for key, value in results.hashed_keys(config, schema).items() if key != "seed"}
        return Run(folder, found, config, keys)


def _experiment(folder: Path) -> Any:
    return folders.read_config(folder).get("experiment")


def command_of(folder: Path) -> str:
    """The command that began the run in `folder`, as a user would type it.

    Raises:
        DamagedRun: `environment.json` does not say it.
    """
    with reading(folder):
        return as_typed(folders.read_environment(folder).get("command", ""))


def repeated(runs: Iterable[Run]) -> list[str]:
    """A line for each run folder that holds what another one holds: the same settings, the same seed."""
    first: dict[str, Run] = {}
    lines = []
    for run in runs:
        kept = first.setdefault(run.results.config_hash, run)
        if kept is not run:
            lines.append(f"{run.folder}: the same run as {kept.folder}")
    return lines
