"""Answer a split with the selected weights of a run; its folder gets `evaluation-<split>.json`.

    python -m perk.evaluate run=<run folder> inner_steps=6                the test split, with more inner steps
    python -m perk.evaluate run=<run folder> 'lengths=[16384,32768]'      further lengths of the test contexts

Evaluation never changes a weight: contexts are written into functional copies without an outer graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.schema import Device, TrackerConfig, plain, to_typed
from perk.config import APPENDED, DataConfig, Learner, TrainConfig
from perk.variants import position_of, with_length, with_position

if TYPE_CHECKING:
    from common.run.items import Item
    from common.run.results import Interval
    from perk.build import Parts
    from perk.data import Splits
    from perk.problems import Problem


@dataclass
class EvaluateConfig:
    """What `python -m perk.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    split: str = "test"
    """train, dev or test."""
    lengths: list[int] = field(default_factory=list)
    """Further lengths, as `evaluation.lengths`."""
    positions: list[str] = field(default_factory=list)
    """Further positions, as `evaluation.positions`."""
    appended: bool = False
    """As `evaluation.appended`."""
    inner_steps: int = 0
    """Inner steps at test time; 0 takes the run's own."""
    micro_batch: int = 0
    """Segments in one graph; 0 takes the run's own."""
    confidence: float = 0.95
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""
    root: str | None = None
    """Folder of the run's real data, as `data.root` in training; default: the environment variable INNERLOOP_DATA."""
    cache: str | None = None
    """Folder where built splits are kept, as `data.cache` in training (runs/data); null builds each problem when it is
    asked for."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


ConfigStore.instance().store(name="perk_evaluate_schema", node=EvaluateConfig)


def respond(
    parts: Parts,
    problems: Sequence[Problem],
    config: TrainConfig,
    *,
    select: bool = False,
    length: int = 0,
    position: str | None = None,
    further: str = "",
) -> list[Item]:
    """Greedy answers to every question, scored; `select` is quiet. `length` of the contexts, 0 for `data.length`."""
    from common.language.learner import evaluating
    from common.run.evaluation import in_batches
    from perk.scoring import score

    tokens, size = config.evaluation.max_new_tokens, config.evaluation.batch_problems
    with (
        evaluating(parts.learner.learns, dropout=config.model.evaluation_dropout),
        parts.stretch.applied() if parts.stretch and not select else nullcontext(),
        parts.learner.appending() if further == APPENDED else nullcontext(),  # type: ignore[union-attr]
    ):
        responses = in_batches(lambda batch: parts.learner.respond(batch, tokens), problems, size, quiet=select)
    length = length or config.data.length
    return score(
        problems, responses, config.data, config.method, parts.templates,
        length=length, position=position, further=further,
    )  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """One pass over a split: the problems as the data set has them, or at another length or position."""

    data: DataConfig
    length: int
    """Tokens of the contexts as `data.length` counts them."""
    position: str | None = None
    """Where the gold document or the facts stand; None where positions are not asked for."""
    further: str = ""
    """What differs from the data set: `length`, `position`, that memories are `appended` to, or nothing."""


def passes(config: TrainConfig, split: str = "test") -> list[Pass]:
    """The data set as it is, then further lengths, then further positions; none twice.

    Raises:
        UserError: the task has no such position.
    """
    data, asked = config.data, config.evaluation
    own = data.test_length or data.length if split == "test" else data.length
    place = position_of(data, split) if asked.positions else None
    lengths = [each for each in dict.fromkeys(asked.lengths) if each != own]
    positions = [each for each in dict.fromkeys(asked.positions) if each != place]
    return [
        Pass(data, own, place),
        *(Pass(with_length(data, split, each, asked.problems), each, further="length") for each in lengths),
        *(Pass(with_position(data, split, each, asked.problems), own, each, "position") for each in positions),
        *([Pass(data, own, place, APPENDED)] if asked.appended else []),
    ]


def foresee(config: TrainConfig) -> None:
    """Make the first problem of every further pass over the test split, so that what cannot be made is refused before
    the training and not after it.

    Raises:
        UserError: the task has no such position, or no such length; `evaluation` is named.
    """
    from perk import data

    for each in passes(config):
        if each.further not in ("", APPENDED):
            try:
                data.load(replace(each.data, cache=None))["test"][0]
            except UserError as error:
                asked = f"evaluation.{each.further}s: {each.length if each.further == 'length' else each.position}"
                raise UserError(f"{asked}: {error}") from error


def measure(
    parts: Parts, problems: Sequence[Problem], config: TrainConfig, split: str = "test"
) -> tuple[dict[str, Interval], list[Item]]:
    """What a run reports of a split: metrics with intervals and the answers, also at further lengths and positions."""
    from perk.scoring import summarise

    items: list[Item] = []
    for each in passes(config, split):
        there = asked_of(each, problems, config, split)
        items += respond(parts, there, config, length=each.length, position=each.position, further=each.further)
    return summarise(items, config.evaluation), items


def measure_shortcuts(splits: Splits, config: TrainConfig) -> tuple[dict[str, Interval], list[Item]]:
    """What the rows without a network report of the test split, also at further lengths and positions, and their score
    on every item.
    """
    from perk.scoring import shortcut_items, summarise_rules

    items: list[Item] = []
    for each in passes(config):
        where: dict[str, Any] = {"length": each.length, "position": each.position, "further": each.further}
        items += shortcut_items(splits["train"], asked_of(each, splits["test"], config), config.data, **where)
    return summarise_rules(items, config.evaluation), items


def asked_of(each: Pass, own: Sequence[Problem], config: TrainConfig, split: str = "test") -> Sequence[Problem]:
    """The problems of a pass; `own` are those of the split as the data set has it."""
    from perk import data

    if each.further in ("", APPENDED):
        return own
    most = config.evaluation.problems
    there = data.load(each.data)[split]
    return there[:most] if most else there


def restored(folder: Path, device: Device | None = None) -> tuple[TrainConfig, Parts]:
    """The configuration of a run and its selected model.

    Raises:
        UserError: no such run, no selected checkpoint, or the model is gone.
    """
    import torch

    from common.run.environment import pick_device
    from common.run.state import put_back, selected
    from common.run.stored import stored_config
    from perk.build import build

    trained = stored_config(folder, TrainConfig)
    if trained.method.learner is Learner.shortcuts:
        raise UserError(f"run={folder}: shortcut rules have no weights to evaluate; read its results.json")
    best = selected(folder)
    chosen = pick_device(device or trained.runtime.device)
    torch.manual_seed(trained.seed)
    parts = build(trained, chosen, getattr(torch, trained.runtime.dtype.name))
    put_back(best, parts.tracked, folder, trained.model.name)
    return trained, parts


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Answer a split with the selected weights of a run; writes `evaluation-<split>.json` into its folder, with what
    was asked otherwise than in training behind the split.

    Raises:
        UserError: no such run or split, no selected checkpoint, or the data or model is gone.
    """
    from common.data.splits import SPLITS
    from common.run import evaluation, seeding
    from common.run.results import RunIdentity
    from perk import data
    from perk.build import look
    from perk.methods import Perk

    folder = Path(config.run)
    if config.split not in SPLITS:
        raise UserError(f"split={config.split}: use one of {', '.join(SPLITS)}")
    trained, parts = restored(folder, config.device)
    own = trained.evaluation
    if config.appended and not isinstance(parts.learner, Perk):
        raise UserError(f"appended=true: run={folder} writes no memory to append to; leave it out")
    trained.evaluation = replace(
        own,
        lengths=config.lengths or own.lengths,
        positions=config.positions or own.positions,
        appended=config.appended or own.appended,
        inner_steps=config.inner_steps or own.inner_steps,
        micro_batch=config.micro_batch or own.micro_batch,
        confidence=config.confidence,
    )
    trained.data = replace(trained.data, root=config.root, cache=config.cache)
    splits = data.load(trained.data)
    look(parts, splits, trained)
    if isinstance(parts.learner, Perk):
        parts.learner.writer.inner_steps = trained.evaluation.inner_steps or trained.inner.steps
        parts.learner.micro_batch = trained.evaluation.micro_batch
    with seeding.applied(trained.runtime, trained.seed):
        metrics, _ = measure(parts, splits[config.split], trained, config.split)
    who = RunIdentity("perk", trained.experiment, trained.method.name, trained.scale, trained.seed)
    changed = {key: getattr(config, key) for key in ("inner_steps", "lengths", "positions", "appended")}
    evaluation.report(folder, config.split, changed, metrics, who, plain(trained), config.tracker)
    return metrics


@entry("pkg://conf.perk", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy."""
    return evaluate(to_typed(cfg, EvaluateConfig))["accuracy"].value


if __name__ == "__main__":
    main()
