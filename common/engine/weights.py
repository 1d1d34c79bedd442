"""Weights as data: read them from a module, call the module with others, stack them over tasks, average a stack.

The parameters of the module are never written to; a fast weight lives only in the mapping.
"""

from collections.abc import Generator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.met import tell
from common.engine.swap import swapped, unswapped
from common.errors import UserError

Weights = dict[str, Tensor]
"""Name -> tensor, in the order of `module.named_parameters()`. A stack has one leading task axis on every tensor."""


def select(module: nn.Module, patterns: Sequence[str] = ("*",), key: str = "inner.weights") -> Weights:
    """The parameters of `module` whose names match one of the shell `patterns`, as they are (no copy).

    Tied parameters appear once, under the name that `named_parameters()` gives them. `key` is where the patterns were
    set, for messages.

    Raises:
        UserError: there is no pattern, or one matches nothing, or only the second name of a tied parameter.
    """
    if not patterns:
        raise UserError(f"{key}=[]: no weight is fast; use ['*'] for all")
    with unswapped():
        named = dict(module.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UserError(f"{key}: the pattern '{pattern}' matches no parameter; {_hint(module, pattern)}")
    return {name: value for name, value in named.items() if any(fnmatchcase(name, p) for p in patterns)}


def buffers_of(module: nn.Module) -> Weights:
    """Copies of the buffers of `module`, by name: of batch norm its running mean and variance and its count of batches.

    Integers among them keep their type.
    """
    with unswapped():
        return {name: value.detach().clone() for name, value in module.named_buffers()}


def call(module: nn.Module, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """`module(*args, **kwargs)` with `weights` in place of its own; parameters not named keep their values.

    A tied parameter is replaced wherever it is used, and a shared module in all its places: also where the module holds
    the tensor in a plain list, tuple or dict. What a function of the module has seen in its closure stays. Afterwards,
    and after an error, all is as it was; activation checkpoints (non-reentrant) see `weights` again when a backward
    pass replays them.

    Calls may be made in several threads, also of networks that share layers: their forward passes take turns. Not kept
    apart from them is what goes past this function: `module(...)` or `module.state_dict()` in another thread meanwhile
    finds whatever weights are in place (`common.engine.swap.unswapped` waits for its own).

    `weights` may name buffers too: `{**weights, **buffers}`. A layer that writes buffers in its forward pass (batch
    norm in training mode) then writes to these tensors, in place; those not named are the module's own, and it writes
    there. Under `torch.func.vmap` buffers that are written to must have a task axis in memory, as those of `stack_of`
    have, and those of `stack` have not.

    Raises:
        ValueError: the module has no parameter or buffer of one of the names.
        UserError: two names of one weight have different tensors, or the module runs its weights in a way of its own:
            scripted, split over devices, writing to them, checkpointed with reentrant autograd or inside a stack, or
            yielding its results.
    """
    tell(module, weights)
    with swapped(module, weights):
        found = module(*args, **kwargs)
    if isinstance(found, Generator):
        raise UserError(
            f"{type(module).__name__} yields its results, and would compute them when its own weights are back; "
            "let its forward pass return them"
        )
    return found


def stack(weights: Weights, tasks: int) -> Weights:
    """The same weights for `tasks` tasks: every tensor gains a leading axis of that size (a view, no copy).

    The gradient of the stack with respect to `weights` is the sum over the tasks.
    """
    return {name: value.unsqueeze(0).expand(tasks, *value.shape) for name, value in weights.items()}


def stack_of(tasks: Sequence[Weights]) -> Weights:
    """One stack of different weights, or buffers, a task each; new tensors, differentiable in all that went in.

    Raises:
        ValueError: there is none, or not all have the same names.
    """
    if not tasks:
        raise ValueError("a stack of no tasks")
    for task, weights in enumerate(tasks):
        if weights.keys() != tasks[0].keys():
            raise ValueError(f"task {task} has the names {sorted(weights)}, and task 0 {sorted(tasks[0])}")
    return {name: torch.stack([weights[name] for weights in tasks]) for name in tasks[0]}


def averaged(stacked: Weights, shares: Sequence[float], into: Weights | None = None) -> Weights:
    """Sum of shares[t] * weights of task t, added to `into` one task after the other; differentiable in both.

    A stack may come in chunks, in the order of its tasks: `total = averaged(chunk, its_shares, into=total)` ends with
    the same bits however it was cut. `into` is not written to. Integers, such as batch norm's count of batches, have
    no share: the largest of all tasks is kept. Half precision is added up in float32, which the sum then has.

    Raises:
        ValueError: there is not one share a task, or no task.
    """
    if not shares:
        raise ValueError("an average of no tasks")
    for name, value in stacked.items():
        if len(value) != len(shares):
            raise ValueError(f"{name} is a stack of {len(value)} tasks, and there are {len(shares)} shares")
    total = dict(into or {})
    for task, share in enumerate(shares):
        for name, value in unstack(stacked, task).items():
            if not value.is_floating_point():
                total[name] = torch.maximum(total[name], value) if name in total else value
            else:  # rounded before it is added, whether there is a sum already or not
                part = value.to(torch.promote_types(value.dtype, torch.float32)) * share
                total[name] = total[name] + part if name in total else part
    return total


def unstack(weights: Weights, task: int) -> Weights:
    """The weights of one task out of a stack."""
    return {name: value[task] for name, value in weights.items()}


def leaves(weights: Weights) -> Weights:
    """The same values cut from their history, each a leaf that asks for a gradient."""
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all entries of all `tensors`, without graph; shape []; 0 of none."""
    return nn.utils.get_total_norm(tensors)


def _hint(module: nn.Module, pattern: str) -> str:
    """What to write instead of a pattern that matches nothing."""
    everywhere = dict(module.named_parameters(remove_duplicate=False))
    twin = next((value for name, value in everywhere.items() if fnmatchcase(name, pattern)), None)
    named = dict(module.named_parameters())
    if twin is not None:
        first = next(name for name, value in named.items() if value is twin)
        return f"it is tied to {first}: use that name"
    return f"names look like {', '.join(list(named)[:4])}, ...; use '*' for all weights"
