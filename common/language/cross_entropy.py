"""Token losses over a large vocabulary that never hold [tokens, vocabulary] and can be differentiated twice.

With logits z = hidden head^T + bias and p = softmax(z), the loss of a token is logsumexp(z) - z[target]. Only the
log-sum-exp is kept; the gradient and the Hessian-vector product build z again, one chunk of tokens at a time:

    D = cotangent (p - onehot)                 gradients: hidden D head, head D^T hidden, bias sum of D
    Q = u head^T + hidden U^T + s              for cotangents u, U, s of those three gradients
    E = cotangent p (Q - sum_v p Q)            second derivatives: E head + D U, E^T hidden + D^T u, sum of E,
                                               and (p - onehot) . Q for the cotangent of the losses
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.engine.twice.policy import Need, needed, refuse_third_derivative

CHUNK = 128
"""Tokens at a time: a block of 128 x 50,000 in float32 is 25 MiB."""
SMALL_VOCABULARY = 4096
"""Below this the logits are small beside the activations, and the composite is used."""


def token_losses(
    hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """Cross-entropy of every token; shape [tokens], float32 or wider.

    Differentiable twice in `hidden`, `head` and `bias`; a third derivative raises. What asks for no gradient costs
    none. A small vocabulary, `Need.plain` and the transforms of `torch.func` take torch's own operators.

    Args:
        hidden: what the head is applied to; float [tokens, width].
        head: weight of the head; float [vocabulary, width].
        targets: int64 [tokens], each in 0 .. vocabulary - 1.
        bias: float [vocabulary], or None.
        chunk: tokens whose logits exist at the same time.

    Raises:
        ValueError: `targets` does not fit `hidden`, or `chunk` is below 1.
    """
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets of shape {list(targets.shape)} for hidden of shape {list(hidden.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: at least one token at a time")
    transformed = torch._C._functorch.maybe_current_level() is not None  # vmap, grad, jvp, ... of torch.func
    if transformed or needed() is Need.plain or len(head) < SMALL_VOCABULARY:
        return composite(F.linear(hidden, head, bias), targets)
    losses: Tensor = _Losses.apply(hidden, head, bias, targets, chunk)  # type: ignore[no-untyped-call]
    return losses


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, bias: Tensor | None, targets: Tensor, chunk: int) -> Tensor:
        total = hidden.new_empty(len(hidden), dtype=_wide(hidden))
        losses = torch.empty_like(total)
        for part in _parts(len(hidden), chunk):
            logits = _logits(hidden[part], head, bias)
            total[part] = logits.logsumexp(1)
            losses[part] = total[part] - logits.gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, head, bias, targets, total)
        ctx.chunk = chunk
        return losses

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:3]
        found = _Gradients.apply(cotangent, *ctx.saved_tensors, ctx.chunk, wanted)  # type: ignore[no-untyped-call]
        return *found, None, None


class _Gradients(torch.autograd.Function):
    """Gradients of hidden, head and bias, each None when it is not wanted."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, *kept: Any) -> tuple[Tensor | None, ...]:
        hidden, head, bias, targets, total, chunk, wanted = kept
        for_hidden, for_head, for_bias = _sums((hidden, head, bias), wanted)
        for part in _parts(len(hidden), chunk):
            error = _probabilities(hidden[part], head, bias, total[part])
            _subtract_onehot(error, targets[part]).mul_(cotangent[part, None])
            if for_hidden is not None:
                for_hidden[part] = _product(error, head)
            if for_head is not None:
                _accumulate(for_head, error.T, hidden[part])
            if for_bias is not None:
                for_bias += error.sum(0)
        ctx.save_for_backward(cotangent, hidden, head, bias, targets, total)
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)  # no zeros of the head's size where nothing follows its gradient
        return _narrow((for_hidden, for_head, for_bias), (hidden, head, bias))

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, U: Tensor | None, s: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_third_derivative()
        cotangent, hidden, head, bias, targets, total = ctx.saved_tensors
        sums = _sums((cotangent, hidden, head, bias), ctx.needs_input_grad[:4])
        for_cotangent, for_hidden, for_head, for_bias = sums
        for part in _parts(len(hidden), ctx.chunk):
            u_part = None if u is None else u[part]
            change = _logit_change(hidden[part], head, u_part, U, s)
            probability = _probabilities(hidden[part], head, bias, total[part])
            mean_change = torch.linalg.vecdot(probability, change)
            if for_cotangent is not None:
                for_cotangent[part] = mean_change - change.gather(1, targets[part, None])[:, 0]
            second = change.sub_(mean_change[:, None]).mul_(probability).mul_(cotangent[part, None])
            error = _subtract_onehot(probability, targets[part]).mul_(cotangent[part, None])
            if for_hidden is not None:
                for_hidden[part] = _product(second, head)
                if U is not None:
                    _accumulate(for_hidden[part], error, U)
            if for_head is not None:
                _accumulate(for_head, second.T, hidden[part])
                if u_part is not None:
                    _accumulate(for_head, error.T, u_part)
            if for_bias is not None:
                for_bias += second.sum(0)
        return *_narrow(sums, (cotangent, hidden, head, bias)), None, None, None, None


def _parts(tokens: int, chunk: int) -> Iterator[slice]:
    return (slice(begin, begin + chunk) for begin in range(0, tokens, chunk))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _sums(of: tuple[Tensor | None, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Zeros in float32 or wider to add gradients up in, None where none is wanted."""
    return tuple(
        torch.zeros_like(tensor, dtype=_wide(tensor), memory_format=torch.contiguous_format)
        if want and tensor is not None
        else None
        for tensor, want in zip(of, wanted, strict=True)
    )


def _narrow(sums: tuple[Tensor | None, ...], of: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Each sum in the dtype of the tensor it is the gradient of."""
    return tuple(
        None if total is None or tensor is None else total.to(tensor.dtype)
        for total, tensor in zip(sums, of, strict=True)
    )


def _logits(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    """[tokens, vocabulary], new."""
    logits = _product(hidden, head.T)
    return logits if bias is None else logits.add_(bias)


def _probabilities(hidden: Tensor, head: Tensor, bias: Tensor | None, total: Tensor) -> Tensor:
    """Softmax from the kept log-sum-exp; [tokens, vocabulary], new."""
    return _logits(hidden, head, bias).sub_(total[:, None]).exp_()


def _subtract_onehot(probability: Tensor, targets: Tensor) -> Tensor:
    """Probability minus one at the target, in place."""
    return probability.scatter_add_(1, targets[:, None], probability.new_full((len(targets), 1), -1))


def _logit_change(hidden: Tensor, head: Tensor, u: Tensor | None, U: Tensor | None, s: Tensor | None) -> Tensor:
    """Q: by how much the logits change along the cotangents; [tokens, vocabulary], new."""
    change = hidden.new_zeros(len(hidden), len(head), dtype=_wide(hidden)) if u is None else _product(u, head.T)
    if U is not None:
        _accumulate(change, hidden, U.T)
    return change if s is None else change.add_(s)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product summed and returned in float32 or wider, whatever autocast says.

    Autocast would round here, and differently in the pass that builds the logits again.
    """
    wide = _wide(right)
    with torch.autocast(right.device.type, enabled=False):
        if right.is_cuda and right.dtype != wide:  # the tensor cores' own way; CPU has no such kernel
            return torch.mm(left.to(right.dtype), right, out_dtype=wide)
        return left.to(wide) @ right.to(wide)


def _accumulate(into: Tensor, left: Tensor, right: Tensor) -> None:
    """`into += left @ right`, without a temporary of that size where the dtypes allow."""
    if into.dtype == left.dtype == right.dtype:
        into.addmm_(left, right)
    else:
        into += _product(left, right)


def composite(logits: Tensor, targets: Tensor) -> Tensor:
    """Losses [tokens] of logits [tokens, vocabulary]."""
    return F.cross_entropy(logits.to(_wide(logits)), targets, reduction="none")
