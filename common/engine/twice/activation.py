"""GELU and SiLU whose second derivative costs a few elementwise passes.

Differentiated twice, torch's own turn into some twenty elementwise operators each, and those that `transformers`
writes out keep up to eight tensors of their size. These keep their input and the cotangent, take the first derivative
from torch's fused kernel, and have the second written out. Where `common.engine.twice.policy.composite` says so,
torch's own operators run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.twice.policy import composite, refuse_third_derivative

_sigmoid_backward: Callable[..., Tensor] = torch.ops.aten.sigmoid_backward.default


@dataclass(frozen=True)
class _Curve:
    """A function of one variable, entry by entry."""

    value: Callable[[Tensor], Tensor]  # x -> f(x)
    slope: Callable[[Tensor, Tensor], Tensor]  # (cotangent, x) -> cotangent f'(x)
    bend: Callable[[Tensor], Tensor]  # x -> f''(x), a tensor of its own that may be written to


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, curve: _Curve) -> Tensor:
        ctx.save_for_backward(x)
        ctx.curve = curve
        return curve.value(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _Slope.apply(cotangent, x, ctx.curve), None  # type: ignore[no-untyped-call]


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, x: Tensor, curve: _Curve) -> Tensor:
        ctx.save_for_backward(cotangent, x)
        ctx.curve = curve
        return curve.slope(cotangent, x)

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_third_derivative()
        cotangent, x = ctx.saved_tensors
        for_cotangent = ctx.curve.slope(second, x) if ctx.needs_input_grad[0] else None
        for_x = None
        if ctx.needs_input_grad[1]:
            for_x = ctx.curve.bend(x.to(_wide(x))).mul_(second).mul_(cotangent).to(x.dtype)
        return for_cotangent, for_x, None


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _apply(curve: _Curve, x: Tensor) -> Tensor:
    if composite(x):
        return curve.value(x)
    value: Tensor = _Value.apply(x, curve)  # type: ignore[no-untyped-call]
    return value


def _gelu_bend(x: Tensor) -> Tensor:
    """f = x Phi(x), so f'' = phi(x) (2 - x^2)."""
    square = x * x
    density = (square * -0.5).exp_()
    scale = 1 / math.sqrt(2 * math.pi)
    return torch.rsub(square, 2 * scale, alpha=scale).mul_(density)


def _gelu_tanh_bend(x: Tensor) -> Tensor:
    """f = x s(w) with the logistic s and w = 2k (x + a x^3), so f'' = s (1 - s) (2w' + x w'' + x w'^2 (1 - 2s)).

    The same as with tanh(w / 2), but a CPU takes the logistic in a fifth of the time.
    """
    k, a = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    logistic = (square * (2 * k * a)).add_(2 * k).mul_(x).sigmoid_()
    turn = (square * (6 * k * a)).add_(2 * k).square_().mul_(x)  # x w'^2
    bracket = square.mul_(24 * k * a).add_(4 * k).add_(turn)  # 2w' + x w'' + x w'^2
    bracket.addcmul_(turn, logistic, value=-2)
    return _sigmoid_backward(bracket, logistic)


def _silu_bend(x: Tensor) -> Tensor:
    """f = x s(x) with the logistic s, so f'' = s (1 - s) (2 + x (1 - 2s))."""
    logistic = torch.sigmoid(x)
    bracket = torch.addcmul(x, x, logistic, value=-2).add_(2)
    return _sigmoid_backward(bracket, logistic)


_GELU = {
    "none": _Curve(F.gelu, torch.ops.aten.gelu_backward.default, _gelu_bend),
    "tanh": _Curve(
        lambda x: F.gelu(x, approximate="tanh"),
        lambda cotangent, x: torch.ops.aten.gelu_backward.default(cotangent, x, approximate="tanh"),
        _gelu_tanh_bend,
    ),
}
_SILU = _Curve(F.silu, torch.ops.aten.silu_backward.default, _silu_bend)


class GELU(nn.Module):
    """`nn.GELU` with a cheap second derivative; a third raises.

    Raises:
        ValueError: `approximate` is neither "none" nor "tanh".
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in _GELU:
            raise ValueError(f"approximate={approximate!r}: use 'none' or 'tanh'")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape -> the same shape."""
        return _apply(_GELU[self.approximate], x)


class SiLU(nn.Module):
    """`nn.SiLU` with a cheap second derivative; a third raises."""

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape -> the same shape."""
        return _apply(_SILU, x)
