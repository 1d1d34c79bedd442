"""The outer loop of a run: batches, steps, log, dev evaluation, selection, checkpoints."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from common.engine.cuda.sizes import peak_memory_bytes
from common.engine.outer import Outer
from common.engine.rates import LearnedRates
from common.run import rate_record
from common.run.batches import Batches
from common.run.run import Run


class Learner(Protocol):
    """What the outer loop trains."""

    measured: dict[str, float]
    """Numbers of the last training batch for the log, such as the first and last inner loss."""

    def losses(self, problems: Sequence[Any]) -> Iterator[Tensor]:
        """Outer losses whose sum is the batch's loss (a sum over problems); each may be sent backward at once."""
        ...


def fit(
    run: Run,
    learner: Learner,
    batches: Batches[Any],
    outer: Outer,
    *,
    total: int,
    accumulation: int,
    score: Callable[[], float],
    patience: int,
    rates: LearnedRates | None,
) -> None:
    """Train for `total` outer steps, from where the checkpoint ends; what a checkpoint keeps has been tracked before.

    Args:
        run: the run folder; its `loop` says when to log, evaluate and save.
        learner: gives the losses of a batch.
        batches: batch n is a function of n.
        outer: the optimiser.
        total: outer steps in all.
        accumulation: batches an outer step.
        score: accuracy on the dev split, which selects the model.
        patience: stop after so many dev evaluations without improvement; 0 never.
        rates: the inner learning rates for the log; None without an inner loop.
    """

    def evaluate() -> float:
        found = score()
        run.log(run.step, "dev", accuracy=found)
        if rates is not None:
            rate_record.note(run.folder, run.step, rates)
        return found

    if run.restore() == 0:
        evaluate()
    for step in run.steps(total):
        began, loss = time.monotonic(), 0.0
        for part in range(accumulation):
            loss += outer.accumulate(learner.losses(batches[(step - 1) * accumulation + part]))
        norm = outer.step()
        if run.due(run.loop.log_every):
            shown = {} if rates is None else {f"rates/{name}": value for name, value in rates.summary().items()}
            cost = {"cost/seconds_per_step": time.monotonic() - began}
            cost |= {"cost/peak_memory_bytes": peak_memory_bytes(run.device)}
            run.log(step, "train", outer_loss=loss, grad_norm=norm, **learner.measured, **shown, **cost)
        if run.due(run.loop.evaluate_every):
            run.note_best(evaluate())
            if _out_of_patience(run, step, patience):
                run.end_early()
        run.save_if_due(step)


def _out_of_patience(run: Run, step: int, patience: int) -> bool:
    """Counted from the run's own record of its best step, so that a restart does not begin to count anew."""
    evaluated = run.loop.evaluate_every * patience
    return evaluated > 0 and run.best is not None and step - run.best["step"] >= evaluated
