"""What may follow every step: a projection of the weights, such as onto a ball and into the range of pixels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.engine.derivatives import Product, refuse_unnamed_learners
from common.engine.weights import Weights, leaves

Projection = Callable[[Weights], Weights]
"""The weights after a step -> those that the next one starts from, under the same names and in the same shapes.

A function of its argument alone: it writes to nothing and draws no random numbers, because `recompute` plays it again.
"""


def projected(project: Projection, weights: Weights) -> Weights:
    """`project(weights)` in the order of `weights`.

    Raises:
        ValueError: it has other names or shapes.
    """
    found = project(weights)
    wanted, given = ({name: list(w.shape) for name, w in each.items()} for each in (weights, found))
    if given != wanted:
        raise ValueError(f"a projection keeps names and shapes: {wanted} went in, and {given} came out")
    return {name: found[name] for name in weights}


def settled(project: Projection, weights: Weights) -> Weights:
    """The same in tensors that the next step may write to, without graph: `project` may return what others hold."""
    with torch.no_grad():
        found = projected(project, weights)
        return {name: w if found[name] is w else found[name].clone() for name, w in weights.items()}


def pulled(project: Projection, weights: Weights, bars: Sequence[Tensor], also: Sequence[Tensor]) -> Product:
    """Cotangents of `weights` and of `also` from those of the projected weights, free to write to.

    Raises:
        ValueError: the projection depends on a learning tensor that `also` lacks.
    """
    at = leaves(weights)
    inputs = [*at.values(), *also]
    with torch.enable_grad():
        outputs = projected(project, at)
        reached = [(w, bar) for w, bar in zip(outputs.values(), bars, strict=True) if w.requires_grad]
        if not reached:  # all is reset
            return [torch.zeros_like(x) for x in at.values()], [torch.zeros_like(x) for x in also]
        after, vectors = zip(*reached, strict=True)
        refuse_unnamed_learners(after, inputs, "projection")
        found = torch.autograd.grad(after, inputs, vectors, allow_unused=True, materialize_grads=True)
    return [bar.clone() for bar in found[: len(at)]], list(found[len(at) :])
