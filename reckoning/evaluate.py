"""Room 6: answers of a learner on a split, and `python -m reckoning.evaluate run=<run folder>`.

Evaluation never changes a weight: inner steps work on functional copies without an outer graph.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from common.entry import entry
from common.errors import UserError
from common.schema import to_typed
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
    """Folder of a finished run."""
    split: str = "test"
    inner_steps: int = 0
    """Inner steps at test time; 0 takes the run's own."""
    confidence: float = 0.95


ConfigStore.instance().store(name="evaluate", node=EvaluateConfig)


def respond(
    parts: Parts, problems: Sequence[Problem], config: TrainConfig, *, select: bool = False
) -> list[Item]:
    """Greedy answers to every question, scored; `select` decodes only as far as the label."""
    from reckoning.scoring import score

    network = parts.model.network
    training = network.training
    network.train(config.model.evaluation_dropout)
    tokens = config.evaluation.dev_new_tokens if select else config.evaluation.max_new_tokens
    size = config.evaluation.batch_problems
    try:
        responses = []
        for start in range(0, len(problems), size):
            responses += parts.learner.respond(problems[start : start + size], tokens)
    finally:
        network.train(training)
    recited = not select and config.method.target is not Target.single
    return score(problems, responses, config.data.labels or {}, recited=recited)


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Answer a split with the selected weights of a finished run; writes `evaluation-<split>.json` beside them.

    Raises:
        UserError: no such run, no selected checkpoint, or the data or model is gone.
    """
    from common import checkpoint
    from common.environment import pick_device
    from common.files import write_atomic
    from common.run import CHECKPOINTS, CONFIG
    from common.seeding import seed_everything
    from reckoning import data
    from reckoning.build import build
    from reckoning.scoring import summarise

    folder = Path(config.run)
    if config.split not in SPLITS:
        raise UserError(f"split={config.split}: use one of {', '.join(SPLITS)}")
    if not (folder / CONFIG).is_file():
        raise UserError(f"run={folder}: there is no {CONFIG}; give the folder of a run (…/reckoning/<experiment>/<overrides>)")
    trained = to_typed(OmegaConf.create(yaml.safe_load((folder / CONFIG).read_text())), TrainConfig)
    if trained.method.learner is Learner.shortcuts:
        raise UserError(f"run={folder}: shortcut rules have no weights to evaluate; read its results.json")
    last = checkpoint.latest(folder / CHECKPOINTS)
    if last is None or last.run["best"] is None:
        raise UserError(f"run={folder}: no selected checkpoint yet; run its training command again and it continues")
    best = checkpoint.load(folder / CHECKPOINTS / checkpoint.name_of(int(last.run["best"]["step"])))

    trained.evaluation.inner_steps = config.inner_steps or trained.evaluation.inner_steps
    device = pick_device(trained.runtime.device)
    seed_everything(trained.seed)
    splits = data.load(trained.data)
    import torch

    parts = build(trained, splits, device, getattr(torch, trained.runtime.dtype.name))
    parts.model.network.load_state_dict(best.objects["model"])
    parts.rates.load_state_dict(best.objects["rates"])
    items = respond(parts, splits[config.split], trained)
    metrics = summarise(items, config.confidence)
    text = json.dumps({name: asdict(interval) for name, interval in metrics.items()}, indent=2)
    write_atomic(folder / f"evaluation-{config.split}.json", text + "\n")
    for name, interval in metrics.items():
        logger.info("%s/%s %.4f (%.4f-%.4f)", config.split, name, interval.value, interval.low, interval.high)
    return metrics


@entry("pkg://conf.reckoning", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy."""
    return evaluate(to_typed(cfg, EvaluateConfig))["accuracy"].value


if __name__ == "__main__":
    main()
