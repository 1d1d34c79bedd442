"""Layer norm and RMS norm whose second derivative costs a few elementwise passes.

As in `common.engine.twice.activation`, for the same reason: these keep their input, the cotangent and a number or two
a row.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.twice.policy import composite, refuse_third_derivative

_layer_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.ops.aten.native_layer_norm_backward.default


class _Norm(torch.autograd.Function):
    """y = weight u + bias, with u = (x - mean) rstd for the layer norm and u = x rstd for the RMS norm (mean None)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
        mean = None
        if centred:
            y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        else:
            rstd = (_dot(x, x) / x.shape[-1]).add_(eps).rsqrt_()
            y = (x * rstd).mul_(weight)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        wanted = list(ctx.needs_input_grad[:3])
        found = _NormGradients.apply(cotangent, *ctx.saved_tensors, wanted)  # type: ignore[no-untyped-call]
        return *found, None, None


class _NormGradients(torch.autograd.Function):
    """Gradients of x, weight and bias, None where none is wanted.

    J = rstd (1 - [mean] - u u^T / width), the symmetric derivative of u in x, carries everything: the gradient is
    J (cotangent weight), and as d(rstd)/dx = -rstd^2 u / width, the derivative of v . J a in x for fixed v and a is
    -J (rstd (u.a v + u.v a)) / width - u rstd (v . J a) / width.
    """

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, *kept: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd, wanted = kept  # all Tensors or None, and list[bool]
        ctx.save_for_backward(cotangent, x, weight, bias, mean, rstd)
        if mean is not None:
            return _layer_norm_backward(cotangent, x, weight.shape, mean, rstd, weight, bias, wanted)
        for_x = _through(cotangent * weight, x, mean, rstd) if wanted[0] else None
        for_weight = (x * rstd).mul_(cotangent).flatten(0, -2).sum(0) if wanted[1] else None
        return for_x, for_weight, None

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, s: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        cotangent, x, weight, _, mean, rstd = ctx.saved_tensors
        if v is None:  # x learns nothing, so it has no gradient to be differentiated
            v = torch.zeros_like(x)
        unit = x * rstd if mean is None else (x - mean).mul_(rstd)
        scaled = cotangent * weight
        passed = _through(v, x, mean, rstd)
        share = rstd / x.shape[-1]
        inner = (v * (share * _dot(unit, scaled)).neg_()).addcmul_(scaled, share * _dot(unit, v), value=-1)
        if s is not None:
            inner.addcmul_(cotangent, s)
        for_x = _through(inner, x, mean, rstd).addcmul_(unit, share * _dot(passed, scaled), value=-1)
        for_weight = (passed * cotangent).flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        for_cotangent = passed.mul_(weight)
        if s is not None:
            for_cotangent.addcmul_(unit, s)
        if q is not None:
            for_cotangent.add_(q)
        return for_cotangent, for_x, for_weight, None, None, None, None


def _through(cotangent: Tensor, x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """J cotangent, a tensor of its own."""
    if mean is None:
        overlap = _dot(cotangent, x) * rstd**3 / x.shape[-1]
        return (cotangent * rstd).addcmul_(x, overlap, value=-1)
    return _layer_norm_backward(cotangent, x, x.shape[-1:], mean, rstd, None, None, [True, False, False])[0]


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product of every row; [..., 1]."""
    products: Tensor = torch.linalg.vecdot(left, right)
    return products.unsqueeze(-1)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis, with weight and bias, and a cheap second derivative; a third raises."""

    def forward(self, x: Tensor) -> Tensor:
        """float [..., width] -> the same shape."""
        if composite(x) or not x.dtype == self.weight.dtype == _wide(x):
            return super().forward(x)
        y: Tensor = _Norm.apply(x, self.weight, self.bias, self.eps, True)  # type: ignore[no-untyped-call]
        return y


class RMSNorm(nn.Module):
    """The RMS norm of Llama and its kin, with a cheap second derivative; a third raises."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """float [..., width] -> the same shape; the statistics in float32 or wider."""
        # autocast would round `_dot`
        if composite(x) or torch.is_autocast_enabled(x.device.type) or not x.dtype == self.weight.dtype == _wide(x):
            wide = x.to(_wide(x))
            return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)
        y: Tensor = _Norm.apply(x, self.weight, None, self.eps, False)  # type: ignore[no-untyped-call]
        return y


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
