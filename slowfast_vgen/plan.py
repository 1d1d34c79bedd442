"""Plan with a trained run: generate the way out and back, read the actions off the video, carry them out.

python -m slowfast_vgen.plan run=<run folder>                                as long as in training
python -m slowfast_vgen.plan run=<run folder> length=4 episodes=64           further out
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import Device, to_typed
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.metrics.config import FeaturesConfig

if TYPE_CHECKING:
    from rich.table import Table

    from common.run.results import Interval
    from slowfast_vgen.planning import Plan

ORACLE, WITH, WITHOUT = "true frames", "with fast learning", "without fast learning"
log = logging.getLogger(__name__)


@dataclass
class PlanConfig:
    """What `python -m slowfast_vgen.plan` reads."""

    run: str = "???"
    """Folder of a run in a world that can be acted in: rooms, maze, table."""
    episodes: int = 128
    length: int = 0
    """Chunks out; 0 takes the run's own."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Of the inverse dynamics, which the table does without, and of FVD-world."""
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""


ConfigStore.instance().store(name="slowfast_vgen_plan_schema", node=PlanConfig)


def plan(config: PlanConfig) -> dict[str, dict[str, Interval]]:
    """Row -> metric -> interval over episodes; writes `plan.json` into the run's folder.

    Raises:
        UserError: no such run, or a world of recordings.
    """
    from common.run import seeding
    from common.run.files import write_atomic
    from common.run.stored import stored_config
    from slowfast_vgen.playing import check_context

    folder = Path(config.run)
    trained = stored_config(folder, TrainConfig)
    if config.episodes < 3:
        raise UserError(f"episodes={config.episodes}: an interval needs 3 or more")
    check_context(trained.method, config.run)
    runtime = replace(trained.runtime, device=config.device or trained.runtime.device)
    trained = replace(trained, runtime=runtime)
    with seeding.applied(trained.runtime, trained.seed):
        found = carried_out(config, folder, trained)
    values = {row: {metric: asdict(each) for metric, each in metrics.items()} for row, metrics in found.items()}
    write_atomic(folder / "plan.json", json.dumps(values, indent=2) + "\n")
    return found


def carried_out(config: PlanConfig, folder: Path, trained: TrainConfig) -> dict[str, dict[str, Interval]]:
    """The plan of true frames, and those of frames generated from the first chunk on.

    FVD-world is that of the row's clips from the true ones; of the true frames it is that of other episodes.
    """
    from slowfast_vgen.episodes import seen
    from slowfast_vgen.evaluate import restored
    from slowfast_vgen.imagine import imagined
    from slowfast_vgen.metrics.lens import lens_of
    from slowfast_vgen.planning import fvd, reader
    from slowfast_vgen.scoring import interval_of_all
    from slowfast_vgen.worlds.episode import OUT_AND_BACK

    parts = restored(folder, trained)
    read = reader(parts.world, trained.data.world)
    seed, length, count = trained.data.seed, config.length or trained.length, config.episodes
    episodes, others = (parts.world.episodes(seed, "test", OUT_AND_BACK, length, first, count) for first in (0, count))
    lens = lens_of(parts.world, trained.data, config.features)
    there = seen(episodes, parts.latents, trained.method, parts.device)
    videos = {ORACLE: episodes.frames}
    for row, learning in ((WITHOUT, False), (WITH, True)):
        if learning <= parts.lora.attached:
            z = imagined(parts, trained, there, learning=learning).z
            videos[row] = parts.latents.decode(z).cpu().numpy()
    found = {}
    for row, video in videos.items():
        away = fvd(lens, episodes.frames, others.frames if row == ORACLE else video)
        distance = interval_of_all("fvd", away, trained.evaluation.confidence)
        found[row] = {**intervals(read(lens, episodes, video, seed, "test")), "fvd": distance}
    return found


def intervals(plan: Plan) -> dict[str, Interval]:
    """Dist, the distance at the end, and agreement, each with its interval over episodes."""
    from common.tables.intervals import mean_interval

    values = {"dist": plan.dist, "end": plan.end, "agreement": plan.agreement}
    return {name: mean_interval(each.tolist(), range(len(each))) for name, each in values.items()}


def table(found: dict[str, dict[str, Interval]]) -> Table:
    """For a terminal."""
    from common.tables.grid import grid

    rows = [
        [row, *(f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in metrics.values())]
        for row, metrics in found.items()
    ]
    head = ["read off", "Dist", "distance at the end", "as asked for", "FVD-world"]
    return grid("Planning: out and back", head, rows)


@entry("pkg://conf.slowfast_vgen", "plan")
def main(cfg: DictConfig) -> float:
    """Returns Dist of the row that learns fast, or of the one that does not."""
    from rich.console import Console

    found = plan(to_typed(cfg, PlanConfig))
    Console(width=140).print(table(found))
    return found.get(WITH, found[WITHOUT])["dist"].value


if __name__ == "__main__":
    main()
