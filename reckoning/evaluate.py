"""Answer a split with the selected weights of a run; its folder gets `evaluation-<split>.json`.

    python -m reckoning.evaluate run=<run folder> inner_steps=6               the test split, with more inner steps
    python -m reckoning.evaluate run=<run folder> data=prontoqa split=all     transfer to another data set

Evaluation never changes a weight: inner steps work on functional copies without an outer graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.run_name import file_name
from common.run.schema import Device, TrackerConfig, plain, to_typed
from reckoning.config import SPLITS, DataConfig, Learner, Target, TemplateConfig, TrainConfig

if TYPE_CHECKING:
    from common.language.learner import Responses
    from common.run.items import Item
    from common.run.results import Interval
    from reckoning.build import Parts
    from reckoning.data import Splits
    from reckoning.problems import Problem

logger = logging.getLogger(__name__)
ALL = "all"
A = TypeVar("A")


@dataclass
class Root:
    """Where `conf/reckoning/data` keeps what it has built."""

    root: str = "runs"


@dataclass
class EvaluateConfig:
    """What `python -m reckoning.evaluate` reads."""

    run: str = "???"
    """Folder of a run."""
    data: DataConfig | None = None
    """Another data set, as data=<name>; null takes the run's own."""
    split: str = "test"
    """train, dev or test; of another data set also all."""
    inner_steps: int = 0
    """Inner steps at test time; 0 takes the run's own."""
    confidence: float = 0.95
    device: Device | None = None
    """auto, cpu or cuda; null takes the run's own."""
    root: str | None = None
    """Folder of the run's real data, as `data.root` in training; default: the environment variable INNERLOOP_DATA."""
    cache: str | None = None
    """Folder where built splits are kept, as `data.cache` in training (runs/data); null builds them anew."""
    loop: Root = field(default_factory=Root)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)


def respond(parts: Parts, problems: Sequence[Problem], config: TrainConfig, *, select: bool = False) -> list[Item]:
    """Greedy answers to every question, scored; `select` decodes only as far as the label."""
    tokens = parts.label_tokens if select else config.evaluation.max_new_tokens
    sets = _sets(problems, config)
    texts = _in_batches(parts, sets, config, lambda batch: parts.learner.respond(batch, tokens), quiet=select)
    return _score(sets, texts, config, recited=not select)


def measure(parts: Parts, problems: Sequence[Problem], config: TrainConfig) -> tuple[dict[str, Interval], list[Item]]:
    """What a run reports of a split: metrics with intervals, and the answers."""
    from reckoning.methods import Reckoning
    from reckoning.scoring import summarise, summarise_encoding

    learner, asked = parts.learner, config.evaluation
    if not (asked.fact_recall and isinstance(learner, Reckoning)):
        items = respond(parts, problems, config)
        return summarise(items, asked.confidence), items
    sets, tokens = _sets(problems, config), asked.max_new_tokens
    answered = _in_batches(parts, sets, config, lambda batch: learner.respond_and_recall(batch, tokens))
    items = _score(sets, [each.texts for each in answered], config, recited=True)
    known = {problem.facts: (problem, each.encoded) for problem, each in zip(sets, answered, strict=True)}
    of, encoded = zip(*known.values(), strict=True)
    return summarise(items, asked.confidence) | summarise_encoding(of, encoded, asked.confidence), items


def _sets(problems: Sequence[Problem], config: TrainConfig) -> Sequence[Problem]:
    """RECKONING answers all questions of a knowledge set from one adapted model, however training problems were cut
    (`evaluation.questions_per_set`).
    """
    from reckoning.problems import group_questions

    if config.method.learner is not Learner.reckoning:
        return problems
    asked = sum(len(problem.questions) for problem in problems)
    return group_questions(problems, config.evaluation.questions_per_set or asked)


def _in_batches(
    parts: Parts,
    problems: Sequence[Problem],
    config: TrainConfig,
    ask: Callable[[Sequence[Problem]], Sequence[A]],
    *,
    quiet: bool = False,
) -> list[A]:
    from common.language.learner import evaluating
    from common.run.evaluation import in_batches

    def load(problem: Problem) -> tuple[int, int]:
        return len(problem.facts), sum(map(len, problem.facts))

    with evaluating(parts.learner.learns, dropout=config.model.evaluation_dropout):
        return in_batches(ask, problems, config.evaluation.batch_problems, load=load, quiet=quiet)


def _score(problems: Sequence[Problem], responses: Responses, config: TrainConfig, *, recited: bool) -> list[Item]:
    from reckoning.scoring import score

    recited = recited and config.method.target is Target.multi
    return score(problems, responses, config.data.labels or {}, recited=recited)


def evaluate(config: EvaluateConfig) -> dict[str, Interval]:
    """Answer a split with the selected weights of a run; writes `evaluation-<split>.json` into its folder, of another
    data set `evaluation-<its name>-<split>.json`, with another number of inner steps behind the split.

    Another data set is asked in the run's templates unless it has its own.

    Of the run's settings only those count that can change a number; tracker, cache and folders are `config`'s. A
    tracker gets a run of its own for it, on W&B with job type evaluate.

    Raises:
        UserError: no such run, no selected checkpoint, the data or model is gone, or the run cannot say an answer.
    """
    import torch

    from common.run import evaluation, seeding
    from common.run.environment import pick_device
    from common.run.results import RunIdentity
    from common.run.state import put_back, selected
    from common.run.stored import stored_config
    from reckoning import data
    from reckoning.build import build

    folder = Path(config.run)
    if config.split not in (*SPLITS, ALL):
        raise UserError(f"split={config.split}: use one of {', '.join(SPLITS)}, or {ALL} with another data set")
    trained = stored_config(folder, TrainConfig)
    if config.split == ALL and (config.data is None or config.data.name == trained.data.name):
        raise UserError(
            f"split={ALL}: the run has learned from {trained.data.name}'s training split; use split=test, or name "
            "another data set with data=..."
        )
    if trained.method.learner is Learner.shortcuts:
        raise UserError(f"run={folder}: shortcut rules have no weights to evaluate; read its results.json")
    best = selected(folder)

    steps = config.inner_steps or trained.evaluation.inner_steps
    trained.evaluation = replace(trained.evaluation, inner_steps=steps, confidence=config.confidence)
    trained.data = replace(trained.data, root=config.root, cache=config.cache)
    words = set((trained.data.labels or {}).values())
    if config.data is not None:
        own = config.data.templates != TemplateConfig()
        trained.data = replace(
            config.data, copies=1, templates=config.data.templates if own else trained.data.templates
        )
    seeding.seed_everything(trained.seed)
    splits = data.load(trained.data)
    problems = _chosen(splits, config.split)
    _check_words(problems, trained.data, words, folder)
    device = pick_device(config.device or trained.runtime.device)
    parts = build(trained, splits, device, getattr(torch, trained.runtime.dtype.name))
    put_back(best, parts.tracked, folder, trained.model.name)
    with seeding.applied(trained.runtime, trained.seed):
        metrics, _ = measure(parts, problems, trained)
    asked = config.split if config.data is None else f"{file_name(config.data.name)}-{config.split}"
    who = RunIdentity("reckoning", trained.experiment, trained.method.name, trained.scale, trained.seed)
    changed = {"inner_steps": config.inner_steps}
    evaluation.report(folder, asked, changed, metrics, who, plain(trained), config.tracker)
    return metrics


def _chosen(splits: Splits, split: str) -> list[Problem]:
    return [problem for name in SPLITS for problem in splits[name] if split in (name, ALL)]


def _check_words(problems: Sequence[Problem], asked: DataConfig, known: set[str], folder: Path) -> None:
    """See that a run whose words are `known` (none where it took any label) can say every answer.

    Raises:
        UserError: it cannot say one.
    """
    labels = {question.answer for problem in problems for question in problem.questions}
    words = {label: (asked.labels or {}).get(label, label) for label in sorted(labels)}
    if strange := [label for label, word in words.items() if known and word not in known]:
        raise UserError(
            f"data={asked.name} has answers that run={folder} cannot say: "
            f"{', '.join(sorted({words[label] for label in strange}))}; it says {', '.join(sorted(known))}. Map them, "
            f"such as data.labels.{strange[0]}=<word>, or take a run that was trained with these words"
        )


@entry("pkg://conf.reckoning", "evaluate")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy."""
    return evaluate(to_typed(cfg, EvaluateConfig))["accuracy"].value


if __name__ == "__main__":
    main()
