"""Generate the visits of a split once more with the weights of a run; no slow weight is changed.

python -m slowfast_vgen.evaluate run=<run folder>                                as at the end of training
python -m slowfast_vgen.evaluate run=<run folder> longer=[4] controls=[swapped]  beyond the trained length
python -m slowfast_vgen.evaluate run=<run folder> videos=128                     long videos, plans, FVD, LPIPS, cost
python -m slowfast_vgen.evaluate run=<run folder> calibrate=true                 what the metrics see of known faults
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import Device, TrackerConfig, TrackerName, plain, to_typed
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.settings import Control

if TYPE_CHECKING:
    from common.run.items import Item, OfAll
    from common.run.results import Interval
    from slowfast_vgen.build import Parts
    from slowfast_vgen.calibration import Calibration
    from slowfast_vgen.close import Close
    from slowfast_vgen.worlds.episode import Episodes

USUAL = {
    "split": "test", "longer": [], "controls": [], "imagined": False, "ahead": 0, "videos": 0, "steps": 0,
    "fast_steps": 0, "fast_lr": 0.0, "device": None, "tracker": TrackerName.none,
}  # fmt: skip
"""What a calibration does not take, and the defaults."""
LEAST = 3
"""Videos of a calibration: two are left when one is left out."""


@dataclass
class EvaluateConfig:
    """What `python -m slowfast_vgen.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    split: str = "test"
    """train, dev or test."""
    episodes: int = 0
    """0 takes the run's own number, `evaluation.test`; of a calibration 320."""
    longer: list[int] = field(default_factory=list)
    """As `evaluation.longer`."""
    controls: list[Control] = field(default_factory=list)
    """As `evaluation.controls`; [] takes the run's own."""
    imagined: bool = False
    """As `evaluation.imagined`."""
    ahead: int = 0
    """As `evaluation.ahead`."""
    videos: int = 0
    """As `evaluation.videos`; 0 takes the run's own."""
    steps: int = 0
    """Of the sampler, `diffusion.steps`; 0 takes the run's own."""
    fast_steps: int = 0
    """`fast.steps`; 0 takes the run's own."""
    fast_lr: float = 0.0
    """`fast.lr`; 0 takes the run's own."""
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    calibrate: bool = False
    """Generate nothing; score true videos of the run's world and spoilt ones. Takes run, episodes and features."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Of a calibration, and of `videos`."""

    def __post_init__(self) -> None:
        """Refuse what a calibration does not take.

        Raises:
            UserError: a key that says what is generated, a tracker, or too few videos.
        """
        if not self.calibrate:
            return
        for key, usual in USUAL.items():
            value = self.tracker.name if key == "tracker" else getattr(self, key)
            if value != usual:
                told = json.dumps(plain(value))
                raise UserError(f"{key}={told} with calibrate=true: nothing is generated or tracked; leave {key} out")
        if self.episodes != 0 and self.episodes < LEAST:
            raise UserError(f"episodes={self.episodes} with calibrate=true: use {LEAST} or more, or 0 for 320")


ConfigStore.instance().store(name="slowfast_vgen_evaluate_schema", node=EvaluateConfig)


class Measured(NamedTuple):
    """What a run reports of a split."""

    metrics: dict[str, Interval]
    items: list[Item]
    sets: dict[str, OfAll]
    """Numbers that only all items together have."""


def measure(parts: Parts, config: TrainConfig, split: str = "test") -> Measured:
    """Generate a split and score it; of the test split also what `evaluation.imagined` and `evaluation.videos` ask for.

    Raises:
        UserError: a length or family that the world does not have, or weights of a metric's network are missing.
    """
    from slowfast_vgen.horizons import foreseen
    from slowfast_vgen.long import filmed
    from slowfast_vgen.scoring import interval_of_all, summarise

    asked, close = config.evaluation, None
    sets: dict[str, OfAll] = {}
    metrics: dict[str, Interval] = {}
    if asked.videos and split == "test":
        from slowfast_vgen.close import Close

        close = Close(parts, config)
    count = asked.dev if split == "dev" else asked.test
    items = generated(parts, config, split, count, controls_of(config), asked.longer, close)
    if asked.imagined and split == "test":
        items += lived(parts, config, asked.test)
    if asked.ahead and split == "test":
        items += foreseen(parts, config)
    if close is not None:
        found = filmed(parts, config, close.lens)
        items, sets, metrics = items + found.items, close.sets() | found.sets, found.metrics
    whole = {name: interval_of_all(name, each, asked.confidence) for name, each in sets.items()}
    return Measured(summarise(items, asked.confidence) | whole | metrics, items, sets)


def lived(parts: Parts, config: TrainConfig, count: int) -> list[Item]:
    """Items of episodes that are generated from their first chunk on, with fast learning and without."""
    from slowfast_vgen.generation import imagined_looks
    from slowfast_vgen.scoring import imagined_items

    items: list[Item] = []
    asked = config.evaluation.imagined_length
    for episodes in batches(parts, config, "test", config.length if asked is None else asked, count):
        items += imagined_items(episodes, imagined_looks(parts, config, episodes))
    return items


def controls_of(config: TrainConfig) -> list[Control]:
    """With which memories besides the own ones a test is generated."""
    return [each for each in config.evaluation.controls if each is not Control.own] if config.method.memory else []


def generated(
    parts: Parts,
    config: TrainConfig,
    split: str,
    count: int,
    controls: Sequence[Control] = (),
    longer: Sequence[int] = (),
    close: Close | None = None,
) -> list[Item]:
    """Items of the visits of `count` episodes, and of as many of each further length.

    With the episodes' own memories if the network has an adapter, and then with others as well. `close` looks at the
    own ones of the test's own length.
    """
    from slowfast_vgen.generation import visits
    from slowfast_vgen.scoring import items_of, scores_of

    items: list[Item] = []
    for length in dict.fromkeys([config.length, *longer]):
        for episodes in batches(parts, config, split, length, count):
            for chunk, found, decoded in visits(parts, config, episodes, controls):
                scores = {
                    control: scores_of(parts.world, episodes, chunk, frames, decoded)
                    for control, frames in found.items()
                }
                if close is not None and length == config.length:
                    scores[Control.own] |= close.scores(episodes, chunk, found[Control.own])
                items += items_of(episodes, chunk, scores, length, longer=length != config.length)
    return items


def batches(parts: Parts, config: TrainConfig, split: str, length: int, count: int) -> Iterator[Episodes]:
    """The first `count` episodes of a split, some at a time and never one alone."""
    from slowfast_vgen.episodes import stacks

    for first, size in stacks(count, config.evaluation.batch):
        yield parts.world.episodes(config.data.seed, split, config.evaluation.family, length, first, size)


def restored(folder: Path, config: TrainConfig) -> Parts:
    """The parts of a run with its selected weights; with the adapter, where its method has memories.

    Raises:
        UserError: no such run, no selected checkpoint, or the data are gone.
    """
    import torch

    from common.run.environment import pick_device
    from common.run.state import put_back, selected
    from slowfast_vgen.build import build

    best = selected(folder)
    parts = build(config, pick_device(config.runtime.device), getattr(torch, config.runtime.dtype.name))
    put_back(best, parts.tracked, folder, str(config.model.kind))
    parts.slow.settle()
    if config.method.memory:
        parts.lora.attach()
    return parts


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Generate a split with the weights of a run; writes `evaluation-<split>.json` into its folder, with what was asked
    otherwise than in training behind the split.

    Raises:
        UserError: no such run or split, no selected checkpoint, or the data are gone.
    """
    from common.data.splits import SPLITS
    from common.run import evaluation, seeding
    from common.run.results import RunIdentity
    from common.run.stored import stored_config

    folder = Path(config.run)
    if config.split not in SPLITS:
        raise UserError(f"split={config.split}: use one of {', '.join(SPLITS)}")
    trained = stored_config(folder, TrainConfig)
    own = trained.evaluation
    more = ("longer", "controls", "imagined", "ahead", "videos")
    further = {key: getattr(config, key) or getattr(own, key) for key in more}
    asked = replace(own, test=config.episodes or own.test, dev=config.episodes or own.dev, **further)
    fast = replace(trained.fast, steps=config.fast_steps or trained.fast.steps, lr=config.fast_lr or trained.fast.lr)
    diffusion = replace(trained.diffusion, steps=config.steps or trained.diffusion.steps)
    runtime = replace(trained.runtime, device=config.device or trained.runtime.device)
    features = config.features if config.features != FeaturesConfig() else trained.features
    trained = replace(trained, evaluation=asked, fast=fast, diffusion=diffusion, runtime=runtime, features=features)
    with seeding.applied(trained.runtime, trained.seed):
        metrics = measure(restored(folder, trained), trained, config.split).metrics
    who = RunIdentity("slowfast_vgen", trained.experiment, trained.method.name, trained.scale, trained.seed)
    keys = ("episodes", *more, "steps", "fast_steps", "fast_lr")
    changed = {key: getattr(config, key) for key in keys}
    evaluation.report(folder, config.split, changed, metrics, who, plain(trained), config.tracker)
    return metrics


def calibrated(config: EvaluateConfig) -> Calibration:
    """Score true videos of the world of a run, and spoilt ones; writes `calibration.json` into its folder, and for the
    report `table.jsonl`.

    Raises:
        UserError: no such run, the data are gone, or the cache of the encoders cannot be written.
    """
    from common.run import seeding
    from common.run.files import write_atomic, write_json_lines
    from common.run.folder import TABLE
    from common.run.stored import stored_config
    from slowfast_vgen.calibration import COUNT, calibrate
    from slowfast_vgen.data import world_of
    from slowfast_vgen.metrics.lens import lens_of

    folder = Path(config.run)
    trained = stored_config(folder, TrainConfig)
    with seeding.applied(trained.runtime, trained.seed):
        world, seed = world_of(trained.data), trained.data.seed
        lens = lens_of(world, trained.data, config.features)
        found = calibrate(world, lens, seed, config.episodes or COUNT)
    known = {"encoders": dict(lens.own.digests), "right_on_dev": lens.own.right, "surprises": found.surprises()}
    write_atomic(folder / "calibration.json", json.dumps(asdict(found) | known, indent=2) + "\n")
    write_json_lines(folder / TABLE, found.lines())
    return found


def show(found: Calibration) -> None:
    """Print the table, and below it each cell that is not what the metric should say."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=140)
    console.print(found.table())
    for surprise in found.surprises():
        console.print(f"! {surprise}")


@entry("pkg://conf.slowfast_vgen", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the place accuracy, or the PSNR in a world without a catalogue; of a calibration the surprises' count."""
    from slowfast_vgen.objective import headline

    config = to_typed(cfg, EvaluateConfig)
    if not config.calibrate:
        return headline(evaluate(config))
    found = calibrated(config)
    show(found)
    return len(found.surprises())


if __name__ == "__main__":
    main()
