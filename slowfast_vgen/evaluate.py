"""Generate the visits of a split once more with the weights of a run; no slow weight is changed.

python -m slowfast_vgen.evaluate run=<run folder>                                as at the end of training
python -m slowfast_vgen.evaluate run=<run folder> longer=[4] controls=[swapped]  beyond the trained length
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import Device, TrackerConfig, plain, to_typed
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.settings import Control

if TYPE_CHECKING:
    from torch import Tensor

    from common.run.items import Item
    from common.run.results import Interval
    from slowfast_vgen.build import Parts
    from slowfast_vgen.episodes import Seen
    from slowfast_vgen.memory import Memory
    from slowfast_vgen.worlds.episode import Episodes


@dataclass
class EvaluateConfig:
    """What `python -m slowfast_vgen.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    split: str = "test"
    """train, dev or test."""
    episodes: int = 0
    """0 takes the run's own number, `evaluation.test`."""
    longer: list[int] = field(default_factory=list)
    """As `evaluation.longer`."""
    controls: list[Control] = field(default_factory=list)
    """As `evaluation.controls`; [] takes the run's own."""
    imagined: bool = False
    """As `evaluation.imagined`."""
    steps: int = 0
    """Of the sampler, `diffusion.steps`; 0 takes the run's own."""
    fast_steps: int = 0
    """`fast.steps`; 0 takes the run's own."""
    fast_lr: float = 0.0
    """`fast.lr`; 0 takes the run's own."""
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


ConfigStore.instance().store(name="slowfast_vgen_evaluate_schema", node=EvaluateConfig)


def measure(parts: Parts, config: TrainConfig, split: str = "test") -> tuple[dict[str, Interval], list[Item]]:
    """What a run reports of a split: metrics with intervals, and the items.

    Raises:
        UserError: a length or family that the world does not have.
    """
    from slowfast_vgen.scoring import summarise

    asked = config.evaluation
    items = generated(
        parts, config, split, asked.dev if split == "dev" else asked.test, controls_of(config), asked.longer
    )
    if asked.imagined and split == "test":
        items += lived(parts, config, asked.test)
    return summarise(items, asked.confidence), items


def lived(parts: Parts, config: TrainConfig, count: int) -> list[Item]:
    """Items of episodes that are generated from their first chunk on, with fast learning and without."""
    from slowfast_vgen.episodes import seen
    from slowfast_vgen.imagine import imagined
    from slowfast_vgen.scoring import imagined_items, looks_of

    items: list[Item] = []
    first = 0
    for size in evenly(count, config.evaluation.batch):
        family = config.evaluation.family
        episodes = parts.world.episodes(config.data.seed, "test", family, config.length, first, size)
        first += size
        there = seen(episodes, parts.latents, config.method, parts.device)
        looks = {}
        for control in (Control.own, Control.none) if parts.lora.attached else (Control.own,):
            z = imagined(parts, config, there, every=True, learning=control is Control.own).z
            last = parts.latents.decode(z[:, :, -1:])[:, :, 0].cpu().numpy()
            looks[control] = looks_of(parts.world, last)
        items += imagined_items(episodes, looks)
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
) -> list[Item]:
    """Items of the visits of `count` episodes, and of as many of each further length.

    With the episodes' own memories if the network has an adapter, and then with others as well.
    """
    items: list[Item] = []
    for length in dict.fromkeys([config.length, *longer]):
        first = 0
        for size in evenly(count, config.evaluation.batch):
            family = config.evaluation.family
            episodes = parts.world.episodes(config.data.seed, split, family, length, first, size)
            items += _items(parts, config, controls, episodes, "" if length == config.length else f"of{length}")
            first += size
    return items


def evenly(count: int, most: int) -> list[int]:
    """`count` in parts of at most `most` that differ by one at most, so that none is alone."""
    parts = -(-count // most)
    return [count // parts + (number < count % parts) for number in range(parts)]


def _items(
    parts: Parts, config: TrainConfig, controls: Sequence[Control], episodes: Episodes, longer: str
) -> list[Item]:
    from slowfast_vgen.episodes import memories, seen
    from slowfast_vgen.scoring import items_of, scores_of

    there = seen(episodes, parts.latents, config.method, parts.device)
    written = memories(parts.lora, there) if parts.lora.attached else None
    items: list[Item] = []
    thetas = {
        control: None if written is None else _controlled(parts, there, written, control)
        for control in (Control.own, *controls)
    }
    for chunk in there.visits:
        scores = {}
        for control, theta in thetas.items():
            z = _chunk(parts, config, there, chunk, None if theta is None else theta[chunk])
            frames = parts.latents.decode(z).double().cpu().numpy()
            scores[control] = scores_of(parts.world, episodes, chunk, frames)
        items += items_of(episodes, chunk, scores, longer)
    return items


def _controlled(parts: Parts, episodes: Seen, written: list[Memory], control: Control) -> list[Memory] | None:
    """Theta before each chunk under a control; None: no adapter."""
    from slowfast_vgen.episodes import memories

    if control is Control.own:
        return written
    if control is Control.none:
        return None
    if control is Control.swapped:
        return [memory.rolled() for memory in written]
    if control is Control.frozen:
        once = next((memory for memory in written if memory.chunks), written[0])
        return [once] * len(written)
    back = min(episodes.visits)
    return memories(parts.lora, episodes, begin=back)


def _chunk(parts: Parts, config: TrainConfig, episodes: Seen, chunk: int, memory: Memory | None) -> Tensor:
    """A chunk as generated from the true one before; latents [episodes, frames, values, height, width]."""
    from slowfast_vgen.noise import Noise, normal
    from slowfast_vgen.sampler import sample

    keys = Noise(config.seed, "sample").keys(episodes.ids, chunk)[:, 0]
    past = episodes.past(chunk)
    return sample(
        parts.network,
        parts.diffusion,
        past,
        episodes.actions[:, chunk],
        normal(keys, episodes.z.shape[2:]).to(past),
        steps=config.diffusion.steps,
        guidance=config.evaluation.guidance,
        weights=None if memory is None else memory.weights,
    )


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
    asked = replace(
        own,
        test=config.episodes or own.test,
        dev=config.episodes or own.dev,
        longer=config.longer or own.longer,
        controls=config.controls or own.controls,
        imagined=config.imagined or own.imagined,
    )
    fast = replace(trained.fast, steps=config.fast_steps or trained.fast.steps, lr=config.fast_lr or trained.fast.lr)
    diffusion = replace(trained.diffusion, steps=config.steps or trained.diffusion.steps)
    runtime = replace(trained.runtime, device=config.device or trained.runtime.device)
    trained = replace(trained, evaluation=asked, fast=fast, diffusion=diffusion, runtime=runtime)
    with seeding.applied(trained.runtime, trained.seed):
        metrics, _ = measure(restored(folder, trained), trained, config.split)
    who = RunIdentity("slowfast_vgen", trained.experiment, trained.method.name, trained.scale, trained.seed)
    keys = ("episodes", "longer", "controls", "imagined", "steps", "fast_steps", "fast_lr")
    changed = {key: getattr(config, key) for key in keys}
    evaluation.report(folder, config.split, changed, metrics, who, plain(trained), config.tracker)
    return metrics


@entry("pkg://conf.slowfast_vgen", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the place accuracy, or the PSNR in a world without a catalogue."""
    from slowfast_vgen.objective import headline

    return headline(evaluate(to_typed(cfg, EvaluateConfig)))


if __name__ == "__main__":
    main()
