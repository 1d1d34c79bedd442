"""Who is told of the networks that a loss calls, and of the weights that it calls them with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

Met = Callable[[nn.Module, Mapping[str, Tensor]], None]
"""(network, weights and buffers in place of its own)."""

_told: ContextVar[Met | None] = ContextVar("told", default=None)


@contextmanager
def telling(met: Met | None) -> Iterator[None]:
    """Inside the block `met` is told of every network just before `common.engine.weights.call` calls it."""
    token = _told.set(met)
    try:
        yield
    finally:
        _told.reset(token)


def tell(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Called before anything of `module` is swapped or run."""
    if (met := _told.get()) is not None:
        met(module, weights)
