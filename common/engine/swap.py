"""Other tensors in the places of a module's own: for one forward pass, and for what repeats it in a backward pass.

Every place (`common.engine.places`) is filled once and put back whatever happens. Places are filled by one thread at a
time, whichever modules they belong to: two networks may share a layer.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from common.engine.places import Places
from common.engine.second import differentiable_twice, twice
from common.engine.twice.policy import needed, needing
from common.errors import UserError

_GENERATOR, _REENTRANT = "_checkpoint_without_reentrant_generator", "CheckpointFunction"
"""What `torch.utils.checkpoint.checkpoint` looks up among its module's names for each of its two kinds."""
_ABSENT = object()

_lock = threading.RLock()
_depth = 0
_turn = 0
"""Number of the holding of `_lock` that is on, or was last."""
_active: ContextVar[tuple["Swap", ...]] = ContextVar("active", default=())
"""The swaps around the caller, the outermost first."""


@contextmanager
def unswapped() -> Iterator[None]:
    """Within this block no other thread has its tensors in the places of a module: what is read there is its own."""
    global _depth, _turn
    with _lock, ExitStack() as after:
        _depth += 1
        try:
            if _depth == 1:
                _turn += 1
                _watch_checkpoints(after)
            yield
        finally:
            _depth -= 1


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this block the places of the parameters and buffers that `weights` names hold these.

    A buffer that the module replaces instead of writing to it is written into its tensor of `weights` at the end.

    Raises:
        ValueError: `module` has no parameter or buffer of one of the names.
        UserError: two names of one place have different tensors, or `module` runs its weights in a way of its own.
    """
    with unswapped():
        swap = Swap(module, weights)
        with swap.applied():
            yield


class Swap:
    """Places, and what goes there."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Finds the places; fills none."""
        before = {slot: own for swap in reversed(_active.get()) for slot, own in swap.places.own.items()}
        self.places: Places = Places(module, weights, before)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Fill the places, and put back what was there."""
        before = [(holder, key, holder.get(key, _ABSENT)) for holder, key, _ in self.places.all]
        token = _active.set((*_active.get(), self))
        try:
            for holder, key, value in self.places.all:
                holder[key] = value
            yield
            self._write_replaced()
        finally:
            _active.reset(token)
            for holder, key, own in before:
                if own is _ABSENT:
                    holder.pop(key, None)
                else:
                    holder[key] = own

    def _write_replaced(self) -> None:
        """Buffers that the forward pass put others in place of."""
        for holder, key, given in self.places.buffers:
            now = holder.get(key)
            if now is given:
                continue
            if not isinstance(now, Tensor) or now.shape != given.shape:
                raise UserError(f"the forward pass gives the buffer {key} another shape: leave it out of the weights")
            with torch.no_grad():
                given.copy_(now)


def _watch_checkpoints(after: ExitStack) -> None:
    """Until `after` ends, activation checkpoints are replayed with the swaps in which they were made."""
    generator, reentrant = (getattr(checkpoint, name, None) for name in (_GENERATOR, _REENTRANT))
    if generator is None or reentrant is None:
        raise RuntimeError(
            f"torch {torch.__version__} has no torch.utils.checkpoint.{_GENERATOR} or {_REENTRANT}: a network with "
            "activation checkpoints would get wrong gradients; use the torch of requirements.lock"
        )

    def watched(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        swaps = _active.get()
        if swaps and torch.is_grad_enabled():
            _refuse_checkpoint_of_stack()
            function = _again(function, swaps)
        return generator(function, *args, **kwargs)

    setattr(checkpoint, _GENERATOR, watched)
    after.callback(setattr, checkpoint, _GENERATOR, generator)
    setattr(checkpoint, _REENTRANT, _Refusing(reentrant))
    after.callback(setattr, checkpoint, _REENTRANT, reentrant)


def _again(function: Callable[..., Any], swaps: tuple[Swap, ...]) -> Callable[..., Any]:
    """`function` as it was here, whatever is in the places when it is called."""
    turn, need, second = _turn, needed(), twice()

    def again(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            # A backward pass in the middle of a forward pass may run on another thread, for which its own waits.
            if not (_depth and turn == _turn):
                stack.enter_context(unswapped())
            stack.enter_context(needing(need))
            if second:
                stack.enter_context(differentiable_twice())
            for swap in swaps:
                stack.enter_context(swap.applied())
            return function(*args, **kwargs)

    return again


class _Refusing:
    """Stands for reentrant checkpoints: their backward pass ends at the parameters, and knows no other weights."""

    def __init__(self, reentrant: Any) -> None:
        self.reentrant = reentrant

    def apply(self, function: Callable[..., Any], *args: Any) -> Any:
        """As that of an autograd function."""
        if _active.get() and torch.is_grad_enabled():
            raise UserError(
                "an activation checkpoint with use_reentrant=True inside the network: no gradient of other weights "
                "passes through it; use use_reentrant=False, or gradient_checkpointing_disable() and "
                "inner.unroll=recompute, which saves as much"
            )
        return self.reentrant.apply(function, *args)


def _refuse_checkpoint_of_stack() -> None:
    if torch._C._functorch.maybe_current_level() is not None:
        raise UserError(
            "an activation checkpoint inside a network that runs for a stack of tasks (torch.func): it cannot be "
            "replayed; use gradient_checkpointing_disable() and inner.unroll=recompute, which saves as much, or "
            "inner.stack=false"
        )
