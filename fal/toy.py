"""The paper's toy experiment: three levels of separability, their accuracies by round, the largest stable rate.

python -m fal.toy                                     the rates 1e-5 and 1e-3
python -m fal.toy local_steps=1 summed=true           what the paper leaves open is a key
python -m fal.toy scales='[2.5,0.85]' rates='[0.01]' stable.halvings=0
python -m fal.toy -m +sweep=open hydra/launcher=local    each of those keys changed alone

A run folder like that of `python -m fal.theory`; the figures show data, decision regions and curves.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry, in_sweep
from common.run.schema import to_typed
from fal.toy_config import ToyConfig

if TYPE_CHECKING:
    from common.run.results import Results

ConfigStore.instance().store(name="fal_toy_schema", node=ToyConfig)


def study(config: ToyConfig, folder: Path) -> Results:
    """Train every level at every rate; a finished folder is not touched again."""
    import torch

    from common.run import media
    from common.run.progress import Progress
    from common.run.run import Run, RunIdentity
    from fal.theorem import toy, toy_figures
    from fal.theorem.cells import Cell
    from fal.theorem.reporting import need_cpu, report

    who = RunIdentity("fal", config.experiment, "toy", config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        need_cpu(run.device)
        sets, found, cells, bar = toy.sets_of(config), {}, [], False if in_sweep() else None
        for rate in config.rates:
            with Progress(0, config.rounds, bar=bar, name=f"rate {rate:g}") as progress:
                found[rate] = toy.train(config, sets, torch.full((len(sets.x),), rate), progress.update)
        largest = torch.full((len(sets.x),), torch.nan)
        if config.stable.halvings:
            with Progress(0, config.stable.halvings, bar=bar, name="largest stable rate") as progress:
                largest = toy.largest_rates(config, sets, progress.update)
        for rate, curves in found.items():
            for level, scale in enumerate(config.scales):
                own = slice(level * config.seeds, (level + 1) * config.seeds)
                values: dict[str, list[float | None]] = {"robust": curves.robust[own].tolist()}
                for moment in config.moments:
                    values[f"train_{moment}"] = curves.train[moment - 1, own].tolist()
                    values[f"test_{moment}"] = curves.test[moment - 1, own].tolist()
                ends = largest[own].tolist()  # beyond the search: no value
                values["largest_stable"] = [value if isfinite(value) else None for value in ends]
                cells.append(Cell({"scale": scale, "rate": rate}, values))
        (run.folder / media.FOLDER).mkdir(exist_ok=True)
        figures = {"data": toy_figures.scatter(config, sets), "curves": toy_figures.learning(config, found)}
        for rate, curves in found.items():
            figures[f"regions_rate_{rate:g}"] = toy_figures.regions(config, sets, curves, rate)
        for name, figure in figures.items():
            figure.savefig(run.folder / media.FOLDER / f"{name}.png", dpi=110)
        shown = (toy.TITLE, cells, toy.columns_of(config), config.confidence, (), config.references)
        return run.finish(report(run.folder, *shown))


@entry("pkg://conf.fal.toy")
def main(cfg: DictConfig) -> None:
    """Make the table and its figures."""
    study(to_typed(cfg, ToyConfig), Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
