"""Attack a split with the selected weights of a run once more; no weight is changed.

python -m fal.evaluate run=<run folder>                        as at the end of training
python -m fal.evaluate run=<run folder> eps=0.05 split=dev     another radius
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
from fal.config import TrainConfig

if TYPE_CHECKING:
    from common.engine.weights import Weights
    from common.run.items import Item, OfAll
    from common.run.results import Interval
    from fal.build import Parts

    State = tuple[Weights, Weights]


@dataclass
class EvaluateConfig:
    """What `python -m fal.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    split: str = "test"
    """train, dev or test."""
    eps: float | None = None
    """Another radius, as `evaluation.eps`."""
    steps: int = 0
    """Another number of steps; 0 takes the run's own."""
    restarts: int = 0
    allow_weaker: bool = False
    """As `evaluation.allow_weaker`."""
    confidence: float = 0.95
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""
    root: str | None = None
    """Folder of the run's real data, as `data.root` in training; default: the environment variable INNERLOOP_DATA."""
    cache: str | None = None
    """Folder where splits are kept, as `data.cache` in training."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


ConfigStore.instance().store(name="fal_evaluate_schema", node=EvaluateConfig)


def measure(
    parts: Parts, last: State, recent: Sequence[State], config: TrainConfig, split: str = "test"
) -> tuple[dict[str, Interval], list[Item], dict[str, OfAll]]:
    """What a run reports of a split: metrics with intervals, the items, and numbers of classes and clients.

    The server of `parts` holds the selected weights; `last` and `recent` are those of the last rounds.
    """
    from fal.judge import ROBUST, check, judged
    from fal.scoring import items_of, of_models, summarise

    images, federation = parts.splits[split], parts.federation
    network, best = federation.local.network, federation.server.state
    if config.evaluation.sanity:
        check(network.modules(*best)[0], images, config.attack, config.evaluation)
    found = judged(network, {"best": best, "last": last}, recent, images, config.attack, config.evaluation)
    items, of_all = items_of(found, images.y, split), of_models(found.best[ROBUST], images.y, parts.counts)
    return summarise(items, of_all, config.evaluation.confidence), items, of_all


def restored(folder: Path, config: TrainConfig) -> tuple[Parts, State, Sequence[State]]:
    """The parts of a run with its selected weights, and the weights of its last rounds.

    Raises:
        UserError: no such run, no selected checkpoint, or the data are gone.
    """
    import torch

    from common.run import checkpoint
    from common.run.environment import pick_device
    from common.run.folder import CHECKPOINTS
    from common.run.state import put_back, selected
    from fal.build import build
    from fal.states import Recent

    best, parts = (
        selected(folder),
        build(config, pick_device(config.runtime.device), getattr(torch, config.runtime.dtype.name)),
    )
    recent, server = Recent(config.evaluation.recent), parts.federation.server
    newest = checkpoint.latest(folder / CHECKPOINTS) or best
    put_back(newest, {"server": server, "recent": recent}, folder, str(config.model.kind))
    last = server.state
    put_back(best, {"server": server}, folder, str(config.model.kind))
    return parts, last, recent.states


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Attack a split with the weights of a run; writes `evaluation-<split>.json` into its folder, with what was asked
    otherwise than in training behind the split.

    Raises:
        UserError: no such run or split, no selected checkpoint, a weaker attack than in training, or the data are gone.
    """
    from common.data.dataroot import find
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
        eps=own.eps if config.eps is None else config.eps,
        steps=config.steps or own.steps,
        restarts=config.restarts or own.restarts,
        allow_weaker=config.allow_weaker or own.allow_weaker,
        confidence=config.confidence,
    )
    runtime = replace(trained.runtime, device=config.device or trained.runtime.device)
    data = replace(trained.data, root=config.root, cache=config.cache)
    for name in data.files:  # generated images take the place of missing ones in training alone
        find(data.root, name, "give root=<folder> to this command")
    trained = replace(trained, evaluation=asked, runtime=runtime, data=data)
    with seeding.applied(trained.runtime, trained.seed):
        parts, last, recent = restored(folder, trained)
        metrics, *_ = measure(parts, last, recent, trained, config.split)
    who = RunIdentity("fal", trained.experiment, trained.method.name, trained.scale, trained.seed)
    changed = {key: getattr(config, key) for key in ("eps", "steps", "restarts")}
    evaluation.report(folder, config.split, changed, metrics, who, plain(trained), config.tracker)
    return metrics


@entry("pkg://conf.fal", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy under PGD."""
    from fal.objective import SELECTION

    return SELECTION.headline(evaluate(to_typed(cfg, EvaluateConfig)))


if __name__ == "__main__":
    main()
