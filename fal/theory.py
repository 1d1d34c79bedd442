"""Measure what the theorem speaks of, one table a run.

python -m fal.theory +experiment=separability                     rounds to target against gamma
python -m fal.theory +experiment=local_steps seeds=2              local steps, heterogeneity, rules for eta_local
python -m fal.theory -m +experiment=static,time,width hydra/launcher=local

A run folder like any other: `results.json` has the fitted exponents and the cells' means with intervals over seeds,
`table.md` the table, `table.jsonl` every value of every seed, `records.jsonl` the coordinates of the fact sheet's
section 2.1 every few rounds of every run, `media/` the figures.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry, in_sweep
from common.run.schema import to_typed
from fal.theory_config import TheoryConfig, cells_of

if TYPE_CHECKING:
    from common.run.progress import Progress
    from common.run.results import Results
    from fal.theorem.cells import Cell

logger = logging.getLogger(__name__)
METHOD = "theorem"
WIDTH = 240
"""Of what goes to a file or a pipe."""

ConfigStore.instance().store(name="fal_theory_schema", node=TheoryConfig)


def study(config: TheoryConfig, folder: Path) -> Results:
    """Measure the cells of a table; a finished folder is not touched again.

    Raises:
        UserError: a cell's settings are none, or its points are closer than the adversary's radius allows.
    """
    from common.run.files import write_atomic, write_json_lines
    from common.run.run import Run, RunIdentity
    from fal.theorem import tables

    who = RunIdentity("fal", config.experiment, METHOD, config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        cells = _measured(config)
        tables.compare_with_first(cells)
        write_json_lines(run.folder / "records.jsonl", _records(cells))
        write_json_lines(run.folder / "table.jsonl", map(dict, tables.rows_of(cells)))
        fits = [tables.fit(cells, each, config.confidence) for each in config.fits]
        found = [tables.compared(cells, each, config.confidence) for each in config.references]
        told = tables.summary(fits, found)
        head, rows = tables.lines(cells, config)
        summary = "".join(f"- {line}\n" for line in told)
        write_atomic(run.folder / "table.md", f"{config.title}\n\n{tables.markdown(head, rows)}\n{summary}")
        _show(config.title, head, rows, told)
        _draw(cells, config, run.folder)
        return run.finish(tables.metrics_of(cells, fits, config))


def _measured(config: TheoryConfig) -> list[Cell]:
    """All cells, one after the other, with the time that is left."""
    from common.run.progress import Progress
    from fal.theorem.cells import measure, work

    there = cells_of(config)
    done, cells = 0, list[Any]()
    with Progress(0, sum(work(each) for _, each in there), bar=False if in_sweep() else None, name="work") as progress:
        for change, each in there:
            whole = work(each)
            told = partial(_tell, progress, done, whole, each.federated.rounds)
            cells.append(measure(change, each, told, trail=bool(config.figures)))
            done += whole
            progress.update(done)
    return cells


def _tell(progress: Progress, done: int, whole: int, rounds: int, number: int) -> None:
    progress.update(done + whole * number // rounds)


def _records(cells: list[Cell]) -> Iterator[dict[str, Any]]:
    for number, cell in enumerate(cells):
        for run, record in cell.row():
            finite = {key: value if value == value else None for key, value in record.items()}
            yield {"cell": number, **cell.change, "run": run, **finite}


def _show(title: str, head: list[str], rows: list[list[str]], told: list[str]) -> None:
    from rich.console import Console

    from common.tables.grid import grid

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(grid(title, head, rows))
    for line in told:
        console.print(line, soft_wrap=True)


def _draw(cells: list[Cell], config: TheoryConfig, folder: Path) -> None:
    """The figures that are asked for, as `media/<name>.png`."""
    from common.run import media
    from fal.theorem.figures import FIGURES

    for name in config.figures:
        (folder / media.FOLDER).mkdir(exist_ok=True)
        FIGURES[name](cells, config).savefig(folder / media.FOLDER / f"{name}.png", dpi=110)


@entry("pkg://conf.fal.theory")
def main(cfg: DictConfig) -> None:
    """Make one table."""
    study(to_typed(cfg, TheoryConfig), Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
