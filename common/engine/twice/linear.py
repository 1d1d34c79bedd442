"""A linear layer that spares the product nobody reads when only the curvature of a loss is wanted.

Reverse over reverse first makes the gradient and then differentiates it. A Hessian-vector product has no use for the
gradient's values, but autograd computes them: for y = x W that is x^T y', a third of the first backward pass, and a
tensor of the weight's size. Under `Need.curvature` this layer puts zeros in its place (one number, expanded) and keeps
the derivative.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.twice.policy import Need, needed, refuse_third_derivative, spare


class Linear(nn.Linear):
    """nn.Linear, leaner under `Need.curvature`."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return affine(x, self.weight.T, self.bias) if spares(x, self.weight) else F.linear(x, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] @ weight [in, out] + bias [out], with the gradient of the weight left at zero in the first pass."""
    value: Tensor = _Affine.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return value.view(*x.shape[:-1], weight.shape[1])


def spares(x: Tensor, weight: Tensor) -> bool:
    """Whether `affine` may stand for the layer here: curvature is wanted, and no transform or cast is at work.

    A weight that is made of others (W + B A, say) needs its gradient's values: the second derivative of how it is made
    is multiplied by them.
    """
    plain = torch._C._functorch.maybe_current_level() is None and not torch.is_autocast_enabled(x.device.type)
    if found := needed() is Need.curvature and plain and weight.is_leaf:
        spare(weight)
    return found


class _Affine(torch.autograd.Function):
    """x [rows, in], weight [in, out], bias [out] or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight if bias is None else torch.addmm(bias, x, weight)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the first pass, made to be differentiated
            for_x, for_weight = _Backward.apply(cotangent, x, weight, (by_x, by_weight))  # type: ignore[no-untyped-call]
        else:  # the second pass, coming through the forward one
            for_x = cotangent @ weight.T if by_x else None
            for_weight = x.T @ cotangent if by_weight else None
        return for_x, for_weight, cotangent.sum(0) if by_bias else None


class _Backward(torch.autograd.Function):
    """cotangent y' [rows, out] -> x' = y' W^T and W' = x^T y', the second as zeros."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(cotangent, x, weight)
        ctx.set_materialize_grads(False)
        for_x = cotangent @ weight.T if wanted[0] else None
        return for_x, weight.new_zeros(()).expand(weight.shape) if wanted[1] else None

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None) -> tuple[Tensor | None, ...]:
        """`u` is the cotangent of x', `v` that of W'."""
        refuse_third_derivative()
        cotangent, x, weight = ctx.saved_tensors
        by_cotangent, by_x, by_weight, _ = ctx.needs_input_grad
        for_cotangent = _sum(u @ weight if u is not None else None, x, v) if by_cotangent else None
        for_x = cotangent @ v.T if by_x and v is not None else None
        for_weight = u.T @ cotangent if by_weight and u is not None else None
        return for_cotangent, for_x, for_weight, None


def _sum(first: Tensor | None, x: Tensor, v: Tensor | None) -> Tensor | None:
    """first + x v, each where it is there."""
    if v is None:
        return first
    return x @ v if first is None else first.addmm_(x, v)
