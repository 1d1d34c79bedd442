"""What the engine tells the pieces of a network about the derivatives that will be taken of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

import torch
from torch import Tensor

SMALL = 2**15
"""Below as many entries the calls cost more than the arithmetic, and torch's own second derivative is cheaper."""


class Need(StrEnum):
    """Which derivatives follow a forward pass."""

    first = "first"
    """At most the first: fused kernels without a second derivative are allowed."""
    second = "second"
    """A second one by reverse mode over reverse mode; right for a first one too."""
    curvature = "curvature"
    """The same, and the values of the weights' first derivatives are not read: they may be anything."""
    plain = "plain"
    """Forward mode, vmap, tracing or any order: composite torch operations only."""


_needed: ContextVar[Need] = ContextVar("needed", default=Need.second)
_spared: ContextVar[set[int] | None] = ContextVar("spared", default=None)


@contextmanager
def needing(need: Need) -> Iterator[None]:
    """Forward passes inside the block prepare for `need`; their backward passes may come after it."""
    token = _needed.set(need)
    try:
        yield
    finally:
        _needed.reset(token)


def needed() -> Need:
    """What the innermost `needing` around the caller asks for; `Need.second` outside of any."""
    return _needed.get()


@contextmanager
def sparing() -> Iterator[set[int]]:
    """The ids of the tensors whose first derivative was left out, under `Need.curvature`, inside the block."""
    found: set[int] = set()
    token = _spared.set(found)
    try:
        yield found
    finally:
        _spared.reset(token)


def spare(weight: Tensor) -> None:
    """Called by a piece that leaves out the first derivative of `weight`."""
    if (found := _spared.get()) is not None:
        found.add(id(weight))


def composite(x: Tensor) -> bool:
    """Whether torch's own operators are to run on `x`: a transform of `torch.func` is at work, for one."""
    return torch._C._functorch.maybe_current_level() is not None or needed() is Need.plain or x.numel() < SMALL


def refuse_third_derivative() -> None:
    """Called by a hand-written last derivative, of a piece of a network or of a step of an inner rule.

    Its result is a constant to autograd, and must not pass for more; torch's `once_differentiable` lets some cases pass
    in silence.

    Raises:
        RuntimeError: the derivative is taken with `create_graph=True`.
    """
    if torch.is_grad_enabled():  # inside a backward pass this is create_graph
        raise RuntimeError(
            "no further derivative here: this one, written by hand, is the last "
            "(a network has more of them under needing(Need.plain); an inner rule and a rebuilt step have not)"
        )
