"""What a step does to all of its tensors together: gradients clipped by their global norm, weights spared of decay.

A rule knows one tensor; `common.engine.rules.Together` says what concerns several. Every unroll tells a rule by `bound`
which weights there are and whether they are a stack, in which all of this is of each task alone, and clips before it
steps; `common.engine.cuda.updates` goes by what each weight is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from common.engine.rules import AdamW, Together, UpdateRule
from common.engine.twice.policy import refuse_third_derivative
from common.engine.weights import norm as norm_of
from common.errors import UserError

EPS = 1e-6
"""Added to the norm that a gradient is divided by, as in `torch.nn.utils.clip_grad_norm_`."""


def bound(rule: UpdateRule, weights: Mapping[str, Tensor], value: Tensor) -> UpdateRule:
    """`rule` for a step on these weights whose inner loss was `value`, [] or of a stack [tasks]; most stay as they are.

    Raises:
        UserError: a pattern of `no_decay` has none of the weights.
        ValueError: the shapes of loss and weights are not those of one stack.
    """
    if isinstance(rule, Together):
        own = bound(rule.rule, weights, value)
        _check_stack(weights, value)
        return replace(rule, rule=own, spared=_spared(rule.no_decay, tuple(weights)) if rule.no_decay else ())
    if isinstance(rule, AdamW) and (rule.floor or rule.zero_floor):
        _check_stack(weights, value)
        return replace(rule, stacked=value.dim() > 0)
    return rule


def _check_stack(weights: Mapping[str, Tensor], value: Tensor) -> None:
    for name, w in weights.items() if value.dim() else ():
        if value.dim() > 1 or w.shape[:1] != value.shape:
            raise ValueError(
                f"an inner loss of shape {list(value.shape)} is that of a stack, and {name} has the shape "
                f"{list(w.shape)}: one task's loss has the shape [], a stack's [tasks], the first axis of its weights"
            )


@lru_cache(maxsize=64)
def _spared(patterns: tuple[str, ...], names: tuple[str, ...]) -> tuple[bool, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"inner.no_decay: the pattern '{pattern}' matches no fast weight; names look like "
                f"{', '.join(names[:4])}, ...; use [] for decay on all"
            )
    return tuple(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names)


def picked(rule: UpdateRule, group: Sequence[int]) -> UpdateRule:
    """A bound rule for the weights with these indices alone."""
    if isinstance(rule, Together) and rule.spared:
        return replace(rule, spared=tuple(rule.spared[index] for index in group))
    return rule


def shared_out(rule: Together, size: int) -> list[tuple[UpdateRule, list[int]]]:
    """Rules of single tensors, and the indices of the `size` weights that each is for.

    Raises:
        ValueError: weights are to be spared, and the rule was not `bound`.
    """
    if not rule.no_decay:
        return [(rule.rule, list(range(size)))]
    if len(rule.spared) != size:
        raise ValueError(f"no_decay={list(rule.no_decay)} of {size} weights without names: use `bound` first")
    one: Any = rule.rule
    rules = {False: rule.rule, True: replace(one, weight_decay=0.0)}
    each = [(own, [i for i, spared in enumerate(rule.spared) if spared is which]) for which, own in rules.items()]
    return [(own, indices) for own, indices in each if indices]


def clip_of(rule: UpdateRule) -> float:
    """The largest norm of a gradient; 0: any."""
    return rule.clip if isinstance(rule, Together) else 0.0


def clipped(clip: float, gradients: Sequence[Tensor], tasks: int | None) -> tuple[list[Tensor], Tensor]:
    """g * min(1, clip / (norm + 1e-6)) in new tensors, and the norm; shape [], of a stack of `tasks` [tasks]."""
    norm = _norm(gradients, tasks)
    scale = _scale(clip, norm)
    return [g * _along(scale, g) for g in gradients], norm


def pull_clipped(clip: float, after: Sequence[Tensor], norm: Tensor, bars: Sequence[Tensor]) -> None:
    """Cotangents of gradients, in place of those (`bars`) of the clipped ones, `after`; `norm` is that before clipping.

    With c = s g and s = clip / (n + 1e-6) < 1:  g* = s c* - (sum over all tensors of c* . c) c / (clip n).
    """
    scale = _scale(clip, norm)
    tasks = len(norm) if norm.dim() else None
    along = sum((_dot(bar, c, tasks) for bar, c in zip(bars, after, strict=True)), torch.zeros_like(norm))
    back = torch.where((scale < 1) & (norm > 0), along / (clip * norm), 0.0)
    for bar, c in zip(bars, after, strict=True):
        bar.mul_(_along(scale, bar)).sub_(c * _along(back, c))


def clipped_step(rule: UpdateRule, gradients: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    """The clipped gradients of a step whose inner loss was `value`, differentiable; as they are without `clip`."""
    if not (clip := clip_of(rule)):
        return gradients
    tasks = len(value) if value.dim() else None
    found = _Clipped.apply(clip, tasks, *gradients.values())  # type: ignore[no-untyped-call]
    return dict(zip(gradients, found, strict=True))


class _Clipped(torch.autograd.Function):
    """All gradients of one step as one node of the graph; it saves what the step's own node saves, and the norm."""

    @staticmethod
    def forward(ctx: Any, clip: float, tasks: int | None, *gradients: Tensor) -> tuple[Tensor, ...]:
        after, norm = clipped(clip, gradients, tasks)
        ctx.clip = clip
        ctx.save_for_backward(norm, *after)
        return tuple(after)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        norm, *after = ctx.saved_tensors
        own = [bar.clone() for bar in bars]
        pull_clipped(ctx.clip, after, norm, own)
        return (None, None, *own)


def _norm(tensors: Sequence[Tensor], tasks: int | None) -> Tensor:
    if tasks is None:
        return norm_of(tensors)
    each = [torch.linalg.vector_norm(x.reshape(tasks, x[:1].numel()), dim=1) for x in tensors]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return norms


def _scale(clip: float, norm: Tensor) -> Tensor:
    return torch.clamp(clip / (norm + EPS), max=1.0)


def _dot(a: Tensor, b: Tensor, tasks: int | None) -> Tensor:
    product = a * b
    return product.sum() if tasks is None else product.reshape(tasks, product[:1].numel()).sum(1)


def _along(scale: Tensor, x: Tensor) -> Tensor:
    """A number for all of `x`, or one for each slice of a stack."""
    return (scale.view(-1, *(1 for _ in x.shape[1:])) if scale.dim() else scale).to(x.dtype)
