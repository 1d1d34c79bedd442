"""What `python -m reckoning.model` prints: sizes, and the memory that one outer step needs."""

import logging
from dataclasses import replace

from torch import nn

from common.errors import UserError
from common.language import sizes
from common.language.counting import Shape, Step
from common.language.sizes import aligned, fast_lines, memory_lines, model_lines
from common.language.sources import load_tokenizer
from common.run.environment import pick_device
from reckoning import data
from reckoning.config import Learner, Target, TrainConfig
from reckoning.templates import Templates

logger = logging.getLogger(__name__)
LOOKED_AT = 64
"""Problems; a generated set is made only so large."""
ASSUMED = Shape(20, 24, 1, 160, "assumed, as the data are not there")


def shape_of(config: TrainConfig) -> Shape:
    """Sizes of the largest among the first training problems; assumed ones where data or tokenizer are not there."""
    chosen = config.data
    if chosen.format.made:
        chosen = replace(chosen, theories={"train": LOOKED_AT, "dev": 1, "test": 1}, cache=None)
    try:
        problems = data.load(chosen)["train"][:LOOKED_AT]
        templates = Templates(config.data.templates, config.data.labels or {}, load_tokenizer(config.model), 10**9)
    except UserError as error:
        logger.info("sizes of problems are assumed: %s", error)
        return ASSUMED
    target = Target.single if config.method.target is Target.sum else config.method.target
    facts = [[templates.fact(i, fact) for i, fact in enumerate(problem.facts)] for problem in problems]
    asked = [[templates.question(problem, q, target) for q in problem.questions] for problem in problems]
    return sizes.shape_of(facts, asked)


def step_of(network: nn.Module, config: TrainConfig, shape: Shape) -> Step:
    """The outer step that the settings describe; for the in-context learner the facts stand before every question.

    Raises:
        UserError: the device is not there.
    """
    inner = config.inner if config.method.learner is Learner.reckoning else None
    device, autocast = pick_device(config.runtime.device), config.runtime.autocast
    return Step(network, shape, config.outer.batch_problems, inner, device, autocast=autocast)


def report(network: nn.Module, config: TrainConfig, shape: Shape) -> str:
    """The text for the terminal; `network` may be without data (fake tensors).

    Raises:
        UserError: a pattern of inner.weights matches nothing, or the device is not there.
    """
    lines = model_lines(network, config.model)
    if config.method.learner is Learner.shortcuts:
        return aligned([*lines, ("memory", f"method={config.method.name} trains no network")])
    step = step_of(network, config, shape)
    fast = fast_lines(network, step.inner) if step.inner else []
    return aligned([*lines, *fast, *memory_lines(step, config.runtime.dtype.name, "facts")])
