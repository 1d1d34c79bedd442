"""What `adapt` is given: weights that can be stepped, and how often."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from common.errors import UserError


def check_start(start: Any) -> None:
    """Refuse what has no inner gradient, or one whose derivative would be wrong.

    Raises:
        UserError: inside `torch.inference_mode()`, no weights, or one that is no real floating-point tensor in memory.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("torch.inference_mode() around inner steps, which take gradients; use torch.no_grad(), or none")
    if not isinstance(start, Mapping) or not start:
        what = "no weights" if isinstance(start, Mapping) else f"a {type(start).__name__}"
        raise UserError(
            f"inner steps on {what}: give name -> tensor, as common.engine.weights.select(network) does for example"
        )
    for name, weight in start.items():
        if reason := _unfit(weight):
            raise UserError(f"fast weight {name} {reason}")


def check_steps(steps: Any, keep: Any) -> None:
    """Refuse what is no count of steps.

    Raises:
        UserError: it is no whole number, or out of range.
    """
    for name, count in (("steps", steps), ("keep", keep)):
        if isinstance(count, bool) or not isinstance(count, Integral):
            raise UserError(f"inner.{name}={count!r}: use a whole number")
    if steps < 1:
        raise UserError(f"inner.steps={steps}: at least one inner step is needed; use a value of 1 or more")
    if not 0 <= keep <= steps:
        raise UserError(f"inner.keep={keep} with inner.steps={steps}: use a value between 0 and {steps}")


def number(rate: Any, of: str = "") -> float:
    """A plain inner rate.

    Raises:
        UserError: it is no finite number.
    """
    if isinstance(rate, bool) or not isinstance(rate, Real) or not math.isfinite(rate):
        raise UserError(f"the inner rate{of} is {rate!r}: use a finite number, or common.engine.rates.LearnedRates")
    return float(rate)


def _unfit(weight: Any) -> str:
    if not isinstance(weight, Tensor):
        return f"is a {type(weight).__name__}, and a tensor is needed"
    if isinstance(weight, UninitializedParameter):
        return "has no shape yet; call the network once before"
    if weight.is_complex():
        return "is complex, and the rules are those of real numbers; make its torch.view_as_real the weight"
    if not weight.is_floating_point() or weight.dtype.itemsize < 2:
        return f"has type {weight.dtype} and no inner gradient; leave it out by the patterns of inner.weights"
    if weight.layout is not torch.strided:
        return f"is {weight.layout}; use a dense one"
    if weight.is_meta:
        return "is on the meta device and has no values; load the network first"
    if weight.is_inference():
        return "was made inside torch.inference_mode(); make it outside, or use its .clone()"
    return ""
