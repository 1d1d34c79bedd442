"""Training a language model, the same in every paper: batches, optimiser, checkpoints, selection on dev, export."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from common.engine.outer import Outer
from common.engine.rates import LearnedRates
from common.engine.settings import OuterConfig, Schedule
from common.fit import fit
from common.language.learner import Learner
from common.language.model import LanguageModel
from common.run import rate_record
from common.run.batches import Batches
from common.run.export import export
from common.run.run import Run
from common.run.state import Stateful

MODEL = "model"
"""Folder in the run folder: the selected weights (or the adapter) and the tokenizer, for plain `from_pretrained`."""

P = TypeVar("P")


class Parts(Protocol):
    """What a run is made of."""

    @property
    def model(self) -> LanguageModel:
        """The network."""

    @property
    def learner(self) -> Learner[Any]:
        """The method around it."""

    @property
    def rates(self) -> LearnedRates | None:
        """Inner learning rates; None for a learner without an inner loop."""

    @property
    def tracked(self) -> Mapping[str, Stateful]:
        """What a checkpoint keeps of it, by name."""


def train_and_select(
    run: Run,
    parts: Parts,
    problems: Sequence[P],
    config: OuterConfig,
    score: Callable[[], float],
    *,
    patience: int,
    schedule: Schedule = Schedule.linear,
    fresh: Callable[[P, random.Random], P] | None = None,
) -> None:
    """Train from where the checkpoint ends, put the model back that dev selected, and export it.

    Args:
        run: the run folder.
        parts: model, method and rates; they end in the selected state.
        problems: the training split.
        config: `outer.*`.
        score: accuracy on the dev split.
        patience: stop after so many dev evaluations without improvement; 0 never.
        schedule: how the outer learning rate falls.
        fresh: gives a problem as one pass sees it.

    Raises:
        UserError: a loss is not finite, a checkpoint does not fit, or the disk is full.
    """
    learner = parts.learner
    learner.learns.train()  # from_pretrained leaves dropout off
    total = config.total_steps(len(problems))
    outer = Outer(config, learner.learns, parts.rates, total, schedule)
    for name, part in {**parts.tracked, "outer": outer}.items():
        run.track(name, part)
    fit(
        run,
        learner,
        Batches(problems, config.batch_problems, run.identity.seed, fresh),
        outer,
        total=total,
        accumulation=config.accumulation,
        score=score,
        patience=patience,
        rates=parts.rates,
    )
    step = run.restore_best(*parts.tracked) or run.step
    if parts.rates is not None:
        rate_record.select(run.folder, step)
    folder = run.folder / MODEL
    export(folder, parts.model.files(folder), learner.tokenizer)
