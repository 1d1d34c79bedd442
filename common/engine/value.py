"""The value of an inner loss and its gradient by autograd: right to the order that follows, or refused in words."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from common.engine.weights import Weights
from common.errors import UserError

NO_SECOND = (
    "the network uses {0}, which has no second derivative in torch: use another layer in its place, or "
    "inner.unroll=first_order"
)
KNOWN = {
    r"[Ii]nference tensor": "a tensor that was made under torch.inference_mode() is among data or weights of a loss: "
    "make it under torch.no_grad(), or give its .clone()",
    r"does not currently support double backward": "a compiled piece of the network (torch.compile) has no second "
    "derivative: compile it outside of the inner loss only, or use inner.unroll=first_order",
    r"symbolically trace a dynamo-optimized function": "inner.compile=true compiles the inner loss, and a piece "
    "of it is compiled already (torch.compile): give the network as it was, or use inner.compile=false",
    r"derivative for '?_*([\w:]+?)(?:_backward)?'? is not implemented": NO_SECOND,
    r"modified by an inplace operation": "the network writes to a tensor that its gradient needs, such as a weight or "
    "a buffer that was read before (torch: a variable was modified by an inplace operation): let it write to a copy",
}
"""What an error of torch looks like -> what it means here, and the way out."""


CONSTANT = {
    "Error": "a function whose backward pass is once_differentiable",
    "NotImplemented": "an operation",
    "CdistBackwardBackward0": "cdist",
    "PdistBackwardBackward0": "pdist",
    "EmbeddingBagBackwardBackward0": "EmbeddingBag",
    "EmbeddingBagDenseBackwardBackward0": "EmbeddingBag",
    "StandardGammaGradBackward0": "a gamma distribution",
    "CudnnRnnBackwardBackward0": "cuDNN's recurrent layers",
}
"""Nodes of torch's graphs that raise when they are reached, and what makes them."""
_passed: set[Any] = set()
"""Of the graphs that have been looked at: code of the loss, names of the weights, number of nodes."""


@contextmanager
def in_words() -> Iterator[None]:
    """Errors of torch that a user's setting causes, in words."""
    try:
        yield
    except RuntimeError as error:
        for text, words in KNOWN.items():
            if found := re.search(text, str(error)):
                raise UserError(words.format(*found.groups())) from error
        raise


def value_of(loss: Callable[[Weights, Any], Tensor], weights: Weights, part: Any) -> Tensor:
    """`loss(weights, part)`, which has a graph; shape [] (or of one entry), or [tasks] for a stack.

    Raises:
        UserError: it is anything else.
    """
    value = loss(weights, part)
    refuse_unfit(value, weights)
    if not value.requires_grad:
        raise UserError(
            "the inner loss has no graph: nothing that learns is in it, or it was detached, taken under "
            "torch.no_grad() or made of numbers (.item()); it must be differentiable in the fast weights"
        )
    return value


def refuse_unfit(value: Any, weights: Mapping[str, Tensor], what: str = "inner loss") -> None:
    """Raise unless `value` is a real number for one task, or one for each task of the stack `weights`."""
    if not isinstance(value, Tensor):
        raise UserError(f"the {what} is a {type(value).__name__}; return a tensor of shape [], or [tasks] for a stack")
    if not value.is_floating_point():
        raise UserError(f"the {what} is of type {value.dtype}; it must be a real floating-point number")
    of_tasks = value.dim() == 1 and bool(weights) and all(w.shape[:1] == value.shape for w in weights.values())
    if value.numel() != 1 and not of_tasks:
        raise UserError(
            f"the {what} has the shape {list(value.shape)}; it must be [], such as a mean over rows"
            + (", or [tasks] for a stack, all of whose weights have that leading axis" if weights else "")
        )


def gradients_of(value: Tensor, weights: Weights, *, create_graph: bool = False) -> list[Tensor]:
    """Gradient of the sum of `value` in the order of `weights`; 0 for those that it does not reach.

    Raises:
        UserError: it reaches none of them, or one has a sparse gradient.
    """
    found = torch.autograd.grad(value.sum(), list(weights.values()), create_graph=create_graph, allow_unused=True)
    if all(g is None for g in found):
        raise unreached(weights)
    for name, g in zip(weights, found, strict=True):
        if g is not None and g.layout is not torch.strided:
            raise UserError(
                f"{name} has a sparse gradient, which inner rules do not take: use sparse=False in the embedding, or "
                "leave it out of inner.weights"
            )
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights.values(), strict=True)]


def unreached(weights: Mapping[str, Tensor]) -> UserError:
    """The error of an inner loss that does not depend on what it is to change."""
    return UserError(
        f"the inner loss reaches none of the fast weights ({', '.join(list(weights)[:3])}, ...), so nothing would be "
        "learned: run the network by common.engine.weights.call(network, weights, ...), with the weights given"
    )


def refuse_constant(loss: Callable[..., Any], value: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """Raise where the outer gradient would end in an error of torch's: `gradients` of `value` have no derivative.

    One graph is looked at of each loss, set of weights and number of nodes.
    """
    last = next((g.grad_fn for g in gradients.values() if g.grad_fn is not None), None)
    if last is None or value.grad_fn is None:
        return
    nodes = last._sequence_nr() - value.grad_fn._sequence_nr()
    key = (getattr(loss, "__code__", type(loss)), tuple(gradients), nodes)
    if key in _passed:
        return
    seen, waiting = set(), [g.grad_fn for g in gradients.values()]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if what := CONSTANT.get(node.name().rpartition("::")[2]):
            raise UserError(NO_SECOND.format(what))
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    _passed.add(key)
