"""The check that a run begins with: does rounding decide where its outer gradient points?"""

import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from common.engine.conditioning import SOUND, conditioning
from common.engine.cuda.sizes import forget_peak_memory
from common.engine.outer import Outer
from common.engine.settings import InnerConfig, RuleName
from common.language.learner import MemoryLearner, evaluating
from common.language.training import Parts
from common.run import gradient_record, seeding
from common.run.run import Run

log = logging.getLogger(__name__)
MOST = {"cpu": 1e9, "cuda": 5e10}
"""Weights times tokens times inner steps that the check may take on: about two seconds of one core. On CUDA not
measured."""


def check_gradient(run: Run, parts: Parts, outer: Outer, inner: InnerConfig, problems: Sequence[Any]) -> None:
    """Compare the outer gradient of the first `problems` with that in float64, and with the one an outer step away.

    As many of them are taken as are cheap, without dropout, at the start weights and with the run's inner steps. The
    two cosines (`common.engine.conditioning`) go to the log and to `gradient.json`, from where `results.json` takes
    them. Weights, buffers, generators and the optimiser are as before. Learners without inner steps in training have
    nothing to check.
    """
    learner, rates = parts.learner, parts.rates
    if not isinstance(learner, MemoryLearner) or not learner.meta or rates is None:
        return
    size = sum(w.numel() for w in parts.model.network.parameters()) * inner.steps
    tokens = accumulate(sum(len(row.ids) for row in learner.rows(problem)) for problem in problems)
    most = MOST[run.device.type]
    chosen = problems[: sum(size * count <= most for count in tokens)]
    if inner.compile or not chosen:
        why = "inner.compile=true would compile for float64" if inner.compile else "one problem is too large for it"
        log.info("outer gradient not compared with that in float64: %s", why)
        return
    state = seeding.rng_state()

    def losses() -> Iterator[Tensor]:
        seeding.set_rng_state(state)
        for group in learner.groups(chosen):
            yield learner.answer_loss(learner.memorise(group, training=True), group)

    learns = {w: float(group["lr"]) for group in outer.optimizer.param_groups for w in group["params"]}
    try:
        with evaluating(learner.learns, dropout=False):
            found = conditioning(losses, learns, [learner.learns, parts.model.network, rates])
    except RuntimeError as error:  # a network that has no float64, or no memory for it
        log.info("outer gradient not compared with that in float64: %s", " ".join(str(error).split()))
        return
    finally:
        seeding.set_rng_state(state)
        forget_peak_memory(run.device)
    rough = (
        "" if found.metasmoothness > 0 else "; a full step leads past what it tells: use a lower outer.lr or a warm-up"
    )
    log.info(
        "outer gradient of %d problem(s): cosine %.4f to that in float64, %.3f to that one outer step away%s",
        len(chosen), found.cosine, found.metasmoothness, rough,
    )  # fmt: skip
    if not found.sound:
        log.warning(
            "the outer gradient is not determined by the run's precision: its cosine to that in float64 is %.4f, below "
            "%.2f; %s", found.cosine, SOUND, remedy(inner, autocast=parts.model.autocast),
        )  # fmt: skip
    gradient_record.note(run.folder, found.cosine, found.metasmoothness)


def remedy(inner: InnerConfig, *, autocast: bool) -> str:
    """What makes it sound, in words that can be typed."""
    words = ["inner.eps=1e-4", "inner.floor=0.1"] if inner.rule is RuleName.adamw else []
    words += ["runtime.autocast=false"] if autocast else []
    return "use " + " or ".join([*words, f"inner.lr below {inner.lr:g}"])
