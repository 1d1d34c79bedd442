"""What `python -m reckoning.model` prints: sizes, and the memory that one outer step needs."""

from torch import nn

from common.language.sizes import Shape, Step, aligned, fast_lines, memory_lines, model_lines
from common.run.environment import pick_device
from reckoning.config import Learner, TrainConfig


def step_of(network: nn.Module, config: TrainConfig, shape: Shape) -> Step:
    """The outer step that the settings describe; for the in-context learner the facts stand before every question.

    Raises:
        UserError: the device is not there.
    """
    inner = config.inner if config.method.learner is Learner.reckoning else None
    return Step(network, shape, config.outer.batch_problems, inner, pick_device(config.runtime.device))


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
