"""Other tensors in the places of a module's own: for one forward pass, and for what repeats it in a backward pass.

Every place (`common.engine.places`) is filled once and put back whatever happens. Places are filled by one thread at a
time, whichever modules they belong to: two networks may share a layer.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from common.engine.buffers import Standing
from common.engine.places import Places, modules_in
from common.engine.second import differentiable_twice, twice
from common.engine.twice.policy import needed, needing
from common.errors import UserError

_SELECTIVE = (checkpoint._CachingTorchDispatchMode, checkpoint._CachedTorchDispatchMode)
_ABSENT = object()
Run = Callable[..., Any]

_lock = threading.RLock()
_depth = 0
_turn = 0
"""Number of the holding of `_lock` that is on, or was last."""
_active: ContextVar[tuple["Swap", ...]] = ContextVar("active", default=())
"""The swaps around the caller, the outermost first."""


class unswapped:  # noqa: N801
    """Within this block no other thread has its tensors in the places of a module: what is read there is its own."""

    def __enter__(self) -> None:
        global _depth, _turn
        _lock.acquire()
        _depth += 1
        if _depth == 1:
            _turn += 1

    def __exit__(self, *_: object) -> None:
        global _depth
        _depth -= 1
        _lock.release()


@contextmanager
def swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this block the places of the parameters and buffers that `weights` names hold these.

    A buffer that the module replaces instead of writing to it is written into its tensor of `weights` at the end.

    Raises:
        ValueError: `module` has no parameter or buffer of one of the names.
        UserError: two names of one place have different tensors, `module` runs its weights in a way of its own, or it
            has written to one.
    """
    with unswapped(), Swap(module, weights).applied():
        yield


class Swap:
    """Places, and what goes there."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Finds the places; fills none."""
        self.module = module
        around = _active.get()
        before = {slot: own for swap in reversed(around) for slot, own in swap.places.own.items()} if around else {}
        self.places: Places = Places(module, weights, before)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Fill the places, and put back what was there."""
        before = [(holder, key, holder.get(key, _ABSENT)) for holder, key, _ in self.places.all]
        token = _active.set((*_active.get(), self))
        versions = [value._version for _, value in self.places.weights]
        try:
            for holder, key, value in self.places.all:
                holder[key] = value
            yield
            self._refuse_written(versions)
            self._write_replaced()
        finally:
            _active.reset(token)
            for holder, key, own in before:
                if own is _ABSENT:
                    holder.pop(key, None)
                else:
                    holder[key] = own

    def _refuse_written(self, versions: list[int]) -> None:
        for (name, value), version in zip(self.places.weights, versions, strict=True):
            if value._version != version:
                raise written(name)

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


def written(name: str) -> UserError:
    """The error of a forward pass that writes to a fast weight."""
    return UserError(
        f"the forward pass writes to the weight {name}, and a fast weight is never written to: let it calculate "
        "with the result instead (w = w.clamp(...), or a parametrization), or leave the weight out of inner.weights"
    )


def _watched(function: Run, preserve: bool, context: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
    """A checkpoint, which is replayed with the swaps in which it is made."""
    swaps = _active.get()
    if swaps and torch.is_grad_enabled():
        _refuse_checkpoint_of_stack()
        function, context = _again(function, swaps), _refusing_selection(context)
    return _generator(function, preserve, context, *args, **kwargs)


def _again(function: Run, swaps: tuple[Swap, ...]) -> Run:
    """`function` as it was here, whatever is in the places when it is called."""
    turn, need, second = _turn, needed(), twice()
    standing = Standing(_modules_of(function, swaps))

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
            stack.enter_context(standing.again())
            return function(*args, **kwargs)

    return again


def _modules_of(function: Run, swaps: tuple[Swap, ...]) -> list[nn.Module]:
    """Those that `function` runs: its own, those in its closure, or all."""
    while isinstance(function, partial):
        function = function.func
    held = getattr(function, "__self__", function)
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    roots = [held] if isinstance(held, nn.Module) else list(modules_in(cells))
    return list(
        {id(part): part for root in roots or (swap.module for swap in swaps) for part in root.modules()}.values()
    )


def _refusing_selection(context: Callable[[], Any]) -> Callable[[], Any]:
    """`context`, which gives what stands around a checkpoint's forward pass and around its replay."""
    if not twice():
        return context

    def made() -> Any:
        found = context()
        if any(isinstance(each, _SELECTIVE) for each in found):
            raise UserError(
                "selective activation checkpointing (create_selective_checkpoint_contexts) allows one backward pass, "
                "and a second derivative takes two: checkpoint the whole (no context_fn), or use "
                "inner.unroll=first_order"
            )
        return found

    return made


class _Reentrant(checkpoint.CheckpointFunction):
    """A reentrant checkpoint: its backward pass ends at the parameters, and knows no other weights."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """As that of an autograd function."""
        if _active.get() and torch.is_grad_enabled():
            raise UserError(
                "an activation checkpoint with use_reentrant=True inside the network: no gradient of other weights "
                "passes through it; use use_reentrant=False, or gradient_checkpointing_disable() and "
                "inner.unroll=recompute, which saves as much"
            )
        return super().apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def _refuse_checkpoint_of_stack() -> None:
    if torch._C._functorch.maybe_current_level() is not None:
        raise UserError(
            "an activation checkpoint inside a network that runs for a stack of tasks (torch.func): it cannot be "
            "replayed; use gradient_checkpointing_disable() and inner.unroll=recompute, which saves as much, or "
            "inner.stack=false"
        )


# what torch.utils.checkpoint.checkpoint looks up among its module's names for each of its two kinds
_generator = checkpoint._checkpoint_without_reentrant_generator
checkpoint._checkpoint_without_reentrant_generator = _watched  # type: ignore[assignment]
checkpoint.CheckpointFunction = _Reentrant  # type: ignore[misc]
