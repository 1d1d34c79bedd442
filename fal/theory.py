"""Measure what the theorem speaks of, one table a run.

python -m fal.theory +experiment=separability                     rounds to target against gamma
python -m fal.theory +experiment=local_steps seeds=2              local steps, heterogeneity, rules for eta_local
python -m fal.theory -m +sweep=tables hydra/launcher=local        all tables; python -m fal.theorem.printed prints them

A run folder like any other: `results.json` has the fitted exponents and the cells' means with intervals over seeds,
`table.md` the table, `table.jsonl` every value of every seed, `records.jsonl` the coordinates of the fact sheet's
section 2.1 every few rounds of every run, `media/` the figures.
"""

from __future__ import annotations

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

METHOD = "theorem"

ConfigStore.instance().store(name="fal_theory_schema", node=TheoryConfig)


def study(config: TheoryConfig, folder: Path) -> Results:
    """Measure the cells of a table; a finished folder is not touched again.

    Raises:
        UserError: a cell's settings are none, or its points are closer than the adversary's radius allows.
    """
    from common.run.run import Run, RunIdentity
    from fal.theorem.reporting import need_cpu, report
    from fal.theorem.tables import add_times, compare_with_first, fits_of

    who = RunIdentity("fal", config.experiment, METHOD, config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        need_cpu(run.device)
        cells = _measured(config)
        compare_with_first(cells)
        add_times(cells, config)
        _draw(cells, config, run.folder)
        shown = (config.title, cells, config.columns, config.confidence)
        return run.finish(report(run.folder, *shown, fits_of(cells, config), config.references, config.note))


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
