"""Weights as data: read them from a module, call the module with others, stack them over tasks.

The module itself is never written to; a fast weight lives only in the mapping.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common.errors import UserError

Weights = dict[str, Tensor]
"""Name -> tensor, in the order of `module.named_parameters()`. A stack has one leading task axis on every tensor."""


def select(module: nn.Module, patterns: Sequence[str] = ("*",)) -> Weights:
    """The parameters of `module` whose names match one of the shell `patterns`, as they are (no copy).

    Tied parameters appear once, under the name that `named_parameters()` gives them.

    Raises:
        UserError: a pattern matches nothing.
    """
    named = dict(module.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            sample = ", ".join(list(named)[:4])
            raise UserError(
                f"inner.weights: the pattern '{pattern}' matches no parameter; names look like {sample}, ...; "
                "use '*' for all weights"
            )
    return {name: value for name, value in named.items() if any(fnmatchcase(name, p) for p in patterns)}


def call(module: nn.Module, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """`module(*args, **kwargs)` with `weights` in place of its own; parameters not named keep their values."""
    return functional_call(module, dict(weights), args, kwargs, tie_weights=True)


def stack(weights: Weights, tasks: int) -> Weights:
    """The same weights for `tasks` tasks: every tensor gains a leading axis of that size (a view, no copy).

    The gradient of the stack with respect to `weights` is the sum over the tasks.
    """
    return {name: value.unsqueeze(0).expand(tasks, *value.shape) for name, value in weights.items()}


def unstack(weights: Weights, task: int) -> Weights:
    """The weights of one task out of a stack."""
    return {name: value[task] for name, value in weights.items()}


def leaves(weights: Weights) -> Weights:
    """The same values cut from their history, each a leaf that asks for a gradient."""
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all entries of all `tensors`; shape []."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
