"""Room 6: answers of a learner on a split, and `python -m reckoning.evaluate run=<run folder>`.

Evaluation never changes a weight: inner steps work on functional copies without an outer graph.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from common.entry import entry, in_sweep
from common.errors import UserError
from common.schema import Device, plain, to_typed
from reckoning.config import SPLITS, Learner, Target, TrainConfig

if TYPE_CHECKING:
    from common.intervals import Interval
    from reckoning.build import Parts
    from reckoning.problems import Problem
    from reckoning.scoring import Item

logger = logging.getLogger(__name__)


@dataclass
class EvaluateConfig:
    """What `python -m reckoning.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    split: str = "test"
    inner_steps: int = 0
    """Inner steps at test time; 0 takes the run's own."""
    confidence: float = 0.95
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)


def respond(parts: Parts, problems: Sequence[Problem], config: TrainConfig, *, select: bool = False) -> list[Item]:
    """Greedy answers to every question, scored; `select` decodes only as far as the label."""
    from common.progress import Progress
    from reckoning.scoring import score

    network = parts.model.network
    tokens = parts.label_tokens if select else config.evaluation.max_new_tokens
    size = config.evaluation.batch_problems
    responses = []
    training = network.training
    network.train(config.model.evaluation_dropout)
    try:
        with Progress(0, len(problems), bar=False if select or in_sweep() else None, name="answers") as progress:
            for start in range(0, len(problems), size):
                responses += parts.learner.respond(problems[start : start + size], tokens)
                if not select:
                    progress.update(len(responses))
    finally:
        network.train(training)
    recited = not select and config.method.target is Target.multi
    return score(problems, responses, config.data.labels or {}, recited=recited)


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Answer a split with the selected weights of a run; writes `evaluation-<split>.json` into its folder.

    A run that was tracked gets a W&B run of its own for it, with job type evaluate.

    Raises:
        UserError: no such run, no selected checkpoint, or the data or model is gone.
    """
    import torch

    from common import checkpoint
    from common.environment import pick_device
    from common.files import write_atomic
    from common.folder import CHECKPOINTS, read_config, read_environment
    from common.results import RunIdentity
    from common.seeding import seed_everything
    from common.tracker import make_tracker
    from reckoning import data
    from reckoning.build import build
    from reckoning.scoring import summarise

    folder = Path(config.run)
    if config.split not in SPLITS:
        raise UserError(f"split={config.split}: use one of {', '.join(SPLITS)}")
    trained = to_typed(OmegaConf.create(read_config(folder)), TrainConfig)
    if trained.method.learner is Learner.shortcuts:
        raise UserError(f"run={folder}: shortcut rules have no weights to evaluate; read its results.json")
    last = checkpoint.latest(folder / CHECKPOINTS)
    if last is None or last.run["best"] is None:
        raise UserError(f"run={folder}: no selected checkpoint yet; run its training command again and it continues")
    best = checkpoint.load(folder / CHECKPOINTS / checkpoint.name_of(int(last.run["best"]["step"])))

    steps = config.inner_steps or trained.evaluation.inner_steps
    trained.evaluation = replace(trained.evaluation, inner_steps=steps, confidence=config.confidence)
    seed_everything(trained.seed)
    splits = data.load(trained.data)
    device = pick_device(config.device or trained.runtime.device)
    parts = build(trained, splits, device, getattr(torch, trained.runtime.dtype.name))
    try:
        parts.model.network.load_state_dict(best.objects["model"])
        parts.rates.load_state_dict(best.objects["rates"])
    except RuntimeError as error:
        raise UserError(
            f"run={folder}: its weights do not fit model.name={trained.model.name} as it is now; "
            "put back the model that the run was trained from"
        ) from error
    metrics = summarise(respond(parts, splits[config.split], trained), config.confidence)
    text = json.dumps({name: asdict(interval) for name, interval in metrics.items()}, indent=2)
    write_atomic(folder / f"evaluation-{config.split}.json", text + "\n")
    who = RunIdentity("reckoning", trained.experiment, trained.method.name, trained.scale, trained.seed)
    tracker = make_tracker(trained.tracker, folder, plain(trained), who, read_environment(folder), evaluating=True)
    tracker.summarise({f"{config.split}/{name}": interval.value for name, interval in metrics.items()})
    tracker.finish(0)
    for name, interval in metrics.items():
        logger.info("%s/%s %.4f (%.4f to %.4f)", config.split, name, interval.value, interval.low, interval.high)
    return metrics


@entry("pkg://conf.reckoning", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy."""
    return evaluate(to_typed(cfg, EvaluateConfig))["accuracy"].value


if __name__ == "__main__":
    main()
