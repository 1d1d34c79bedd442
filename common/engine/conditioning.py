"""Whether an outer gradient can be trusted: what float64 makes of it, and how far it holds one outer step away.

    cosine          <g, g64> / (|g| |g64|)     g in the precision of the run, g64 in float64, both at theta
    metasmoothness  <g, g'> / (|g| |g'|)       g' at theta - r * sign(g), in the precision of the run

theta is all that the outer loop trains, as one vector, and r its learning rates in the first outer step, which leads an
Adam to theta - r * sign(g), weight decay aside. Data and losses are the same.

With fresh moments the first inner step of AdamW is g / (|g| + eps), whose slope reaches 1 / eps where a gradient is
near 0. Times the inner rate that can be so much that rounding decides where the outer gradient points. The word
metasmoothness is that of Engstrom et al., Optimizing ML Training with Metagradient Descent (arXiv:2503.13751, 2025),
who compare finite differences of the training's outcome at two nearby points; the cosine of the gradients there asks
the same of the numbers that are used here, and is no number of theirs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.engine.weights import norm

Losses = Callable[[], Iterable[Tensor]]
SOUND = 0.99
"""Smallest cosine at which a gradient counts as determined by the run's precision."""


@dataclass(frozen=True)
class Conditioning:
    """Two cosines, see the module's docstring; NaN where a gradient is not finite."""

    cosine: float
    metasmoothness: float

    @property
    def sound(self) -> bool:
        """Does rounding leave the outer gradient's direction alone?"""
        return self.cosine >= SOUND


def conditioning(losses: Losses, learns: Mapping[Tensor, float], modules: Sequence[nn.Module]) -> Conditioning:
    """Compare the gradients by what `learns`. Weights and buffers are as before, in the memory of before.

    Args:
        losses: the shares of the outer loss, [] each, one graph at a time; takes the inner steps anew at every call,
            and draws the same random numbers if any.
        learns: leaf -> its outer learning rate.
        modules: all whose parameters or buffers the loss reads; those that learn are among them.
    """
    weights = list(learns)
    with _put_back(modules):
        own = _gradient(losses, weights)
        with _put_back(modules):
            for tensor in _floats(modules):
                tensor.data = tensor.data.double()
            exact = _gradient(losses, weights)
        for (w, rate), g in zip(learns.items(), own, strict=True):
            w.data = w.data - rate * g.sign().to(w.dtype)
        near = _gradient(losses, weights)
    return Conditioning(_cosine(own, exact), _cosine(own, near))


def _floats(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers with floating-point numbers, each once."""
    found = {id(x): x for module in modules for x in (*module.parameters(), *module.buffers())}
    return [x for x in found.values() if x.is_floating_point()]


@contextmanager
def _put_back(modules: Sequence[nn.Module]) -> Iterator[None]:
    """After the block parameters and buffers hold the memory that they held before, with the values of before."""
    kept = [(w, w.data) for module in modules for w in module.parameters()]
    buffers = [(b, b.data, b.data.clone()) for module in modules for b in module.buffers()]
    try:
        yield
    finally:
        for w, data in kept:
            w.data = data
        for b, data, value in buffers:
            b.data = data.copy_(value)


def _gradient(losses: Losses, weights: Sequence[Tensor]) -> list[Tensor]:
    total: list[Tensor] = [torch.zeros_like(w, dtype=torch.double) for w in weights]
    for loss in losses():
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        total = [own + g.double() for own, g in zip(total, found, strict=True)]
    return total


def _cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Of two vectors; 1 of two zeros."""
    sizes = norm(a).item(), norm(b).item()
    if not max(sizes):
        return 1.0
    if not all(map(math.isfinite, sizes)):
        return math.nan
    product = sum(((x / sizes[0]) * y).sum().item() for x, y in zip(a, b, strict=True)) if sizes[0] else 0.0
    return product / sizes[1] if sizes[1] else 0.0
