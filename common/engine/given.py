"""What `adapt` is given: start weights that can be stepped, and a loss that has a gradient by them, or one message."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from common.errors import UserError


def check_start(start: dict[str, Tensor]) -> None:
    """Refuse what has no inner gradient, or one whose derivative would be wrong.

    Raises:
        UserError: inside `torch.inference_mode()`, no weights, or one that is no real floating-point tensor in memory.
    """
    if torch.is_inference_mode_enabled():
        raise UserError("torch.inference_mode() around inner steps, which take gradients; use torch.no_grad(), or none")
    if not start:
        raise UserError("inner steps on no weights: give some, of common.engine.weights.select(network) for example")
    for name, weight in start.items():
        if reason := _unfit(weight):
            raise UserError(f"fast weight {name} {reason}")


def _unfit(weight: Any) -> str:
    if not isinstance(weight, Tensor):
        return f"is a {type(weight).__name__}, and a tensor is needed"
    if isinstance(weight, UninitializedParameter):
        return "has no shape yet; call the network once before"
    if weight.is_complex():
        return "is complex, and the rules are those of real numbers; make its torch.view_as_real the weight"
    if not weight.is_floating_point():
        return f"has type {weight.dtype} and no gradient; leave it out by the patterns of inner.weights"
    if weight.layout is not torch.strided:
        return f"is {weight.layout}; use a dense one"
    if weight.is_meta:
        return "is on the meta device and has no values; load the network first"
    if weight.is_inference():
        return "was made inside torch.inference_mode(); make it outside, or use its .clone()"
    return ""


def micro_batches(parts: Any) -> Sequence[Any]:
    """The micro-batches of a step.

    Raises:
        UserError: they are none, or no sequence, such as a generator, which gives them once only.
    """
    listed = hasattr(parts, "__getitem__") and hasattr(parts, "__len__") and getattr(parts, "shape", None) != ()
    if isinstance(parts, Mapping | str | bytes) or not listed:
        raise UserError(
            f"parts={type(parts).__name__}: every step goes through the micro-batches again, so give them as a list, "
            "or give a function of the step's index that returns one"
        )
    if not len(parts):
        raise UserError("parts is empty: give at least one micro-batch; [None] for a loss that needs none")
    return cast(Sequence[Any], parts)


def gradients_of(value: Any, weights: dict[str, Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """Gradient of an inner loss, summed over tasks, in the order of `weights`; 0 for those that it does not reach.

    Raises:
        UserError: it is no real floating-point tensor, reaches no fast weight at all, or has a sparse gradient.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"the inner loss is a {kind}; return one floating-point tensor, of shape [] or [tasks]")
    tensors = list(weights.values())
    found = (
        torch.autograd.grad(value.sum(), tensors, create_graph=create_graph, allow_unused=True)
        if value.requires_grad
        else [None] * len(tensors)
    )
    if all(each is None for each in found):
        raise UserError(
            "the inner loss depends on none of the fast weights: use call(network, weights, ...) in place of "
            "network(...), and neither detach() nor torch.no_grad()"
        )
    if sparse := [name for name, each in zip(weights, found, strict=True) if each is not None and each.is_sparse]:
        raise UserError(f"the gradient of fast weight {sparse[0]} is sparse; use nn.Embedding(..., sparse=False)")
    return [torch.zeros_like(w) if each is None else each for w, each in zip(tensors, found, strict=True)]
