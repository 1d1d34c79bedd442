"""Other tensors in the place of a network's own, for one forward pass, and its own put back whatever happens.

A place is a physical one, an entry in a module's table of parameters or buffers; a layer under two names has each of
its places once, and a tied weight several. One lock serves all networks, since two may share a layer: forward passes
with other weights follow one another, also those of several threads. A plain `network(x)` in another thread meanwhile
is nobody's to hold back, and sees what is in place.

Activation checkpointing runs a part of the network once more in the backward pass, when its own weights are back: what
`torch.utils.checkpoint` will run again is told here to swap first. Its reentrant form is refused, as it takes no
gradient of weights that are not the module's own.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrize
from torch.utils import checkpoint

from common.engine.twice.policy import Need, needed
from common.errors import UserError

Place = tuple[dict[str, Any], str]
"""A module's own table, and the name in it."""
Swap = Sequence[tuple[dict[str, Any], str, Tensor]]
"""What belongs into which place."""

DISTRIBUTED, COMPILED = "a network in nn.DataParallel", "a network that torch.compile has compiled"
_REMEDY = {DISTRIBUTED: ", its .module", COMPILED: ", and inner.compile=true"}
LOCK = threading.RLock()
"""Held while any network has tensors in place of its own, and by whoever reads its own."""
_swaps: ContextVar[tuple[tuple[Swap, list[nn.RNNBase]], ...]] = ContextVar("swaps", default=())


@contextmanager
def swapped(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block `module` has `tensors`, by names of its parameters and buffers, wherever those are used.

    Raises:
        ValueError: it has no parameter or buffer of one of the names, or two names of one tied weight have different
            tensors.
        UserError: a part of it was scripted; it is parametrised and cached; or compiled or distributed, and a second
            derivative may follow.
    """
    with LOCK:  # places are looked up with it in hand: another thread's tensors are no ties
        places, lists = _places(module, tensors)
        with _placed(places, lists):
            yield


@contextmanager
def _placed(swap: Swap, lists: list[nn.RNNBase]) -> Iterator[None]:
    with LOCK:
        before = [(table, key, table[key]) for table, key, _ in swap]
        token = _swaps.set((*_swaps.get(), (swap, lists)))
        try:
            for table, key, value in swap:
                table[key] = value
            yield
        finally:
            _swaps.reset(token)
            for table, key, value in before:
                table[key] = value
            for recurrent in lists:
                recurrent._init_flat_weights()  # its own list of its weights


def _places(module: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[Swap, list[nn.RNNBase]]:
    """Every place that holds what one of the names stands for, each once; and the recurrent layers in `module`."""
    places: dict[int, list[Place]] = {}
    lists = []
    derived: list[tuple[dict[str, Any], str, Tensor]] = []
    if parametrize._cache_enabled and any(map(parametrize.is_parametrized, module.modules())):
        raise UserError(
            "a parametrised network within parametrize.cached(), which holds what other weights gave; "
            "use it inside the network's forward pass, or not at all"
        )
    counted = any(isinstance(tensor, FakeTensor) for tensor in tensors.values())
    twice = torch.is_grad_enabled() and (counted or needed() is not Need.first)
    for own in module.modules():
        if isinstance(own, torch.jit.ScriptModule):
            raise UserError("a scripted network keeps a table of weights of its own; give the module it was made of")
        if twice and (wrapper := _wrapper(own)):
            raise UserError(f"{wrapper}, which has no second derivative; give the network itself{_REMEDY[wrapper]}")
        for table in (own._parameters, own._buffers):
            for key, value in table.items():
                if value is not None:
                    places.setdefault(id(value), []).append((table, key))
        if isinstance(own, nn.RNNBase):
            lists.append(own)
        derived.extend((vars(own), name, vars(own)[name]) for name in _derived(own))
    given: dict[int, tuple[str, Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        held = _held(module, name)
        if held is None or id(held) not in places:
            unknown.append(name)
            continue
        other, already = given.setdefault(id(held), (name, tensor))
        if already is not tensor:
            raise ValueError(f"{other} and {name} are one tied weight, and have different tensors; give one of them")
    if unknown:  # they would never learn
        raise ValueError(f"{type(module).__name__} has no parameter or buffer {sorted(unknown)}")
    swap = [(table, key, tensor) for held, (_, tensor) in given.items() for table, key in places[held]]
    return [*swap, *derived], lists


def _derived(module: nn.Module) -> list[str]:
    """Attributes that hooks of weight norm, spectral norm and pruning write before every forward pass."""
    hooks = module._forward_pre_hooks.values()
    named = (getattr(hook, key, None) for hook in hooks for key in ("name", "_tensor_name"))
    return [name for name in named if isinstance(name, str) and isinstance(vars(module).get(name), Tensor)]


def _wrapper(module: nn.Module) -> str:
    """What stands between a module and its second derivative; empty: nothing."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return DISTRIBUTED
    compiled = module._compiled_call_impl is not None or "_orig_mod" in module._modules
    return COMPILED if compiled or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable") else ""


def _held(module: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer of that dotted name."""
    *path, key = name.split(".")
    for part in path:
        inner = module._modules.get(part)
        if inner is None:
            return None
        module = inner
    found = module._parameters.get(key)
    return module._buffers.get(key) if found is None else found


def _swapping_again(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with what is swapped now in place again."""
    swaps = _swaps.get()

    @wraps(run)
    def again(*args: Any, **kwargs: Any) -> Any:
        with LOCK:
            return _within(swaps, run, args, kwargs)

    return again if swaps else run


def _within(swaps: Any, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if not swaps:
        return run(*args, **kwargs)
    with _placed(*swaps[0]):
        return _within(swaps[1:], run, args, kwargs)


_checkpointed = checkpoint._checkpoint_without_reentrant_generator
"""What `torch.utils.checkpoint` makes of a function to run again; found by this name wherever it is called from."""


@wraps(_checkpointed)
def _checkpointed_with_swaps(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if _swaps.get() and torch.is_grad_enabled() and torch._C._functorch.maybe_current_level() is not None:
        raise UserError(
            "activation checkpointing under torch.func.vmap, where nothing can be run again in the backward pass: "
            "switch it off (inner.unroll=recompute saves as much), or take the tasks one by one (inner.stack=false)"
        )
    return _checkpointed(_swapping_again(run), *args, **kwargs)


class _Reentrant(checkpoint.CheckpointFunction):
    """Refuses where weights are swapped."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run, if the module's own weights are in place."""
        if _swaps.get():
            raise UserError(
                "a network with reentrant activation checkpointing takes no gradient of fast weights; use "
                "torch.utils.checkpoint.checkpoint(..., use_reentrant=False), for a model of transformers "
                "gradient_checkpointing_enable({'use_reentrant': False}), or none: inner.unroll=recompute saves as much"
            )
        return super().apply(*args, **kwargs)  # type: ignore[no-untyped-call]


checkpoint._checkpoint_without_reentrant_generator = _checkpointed_with_swaps  # type: ignore[assignment]
checkpoint.CheckpointFunction = _Reentrant  # type: ignore[misc]
