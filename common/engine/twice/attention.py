"""Attention whose second derivative is quick and takes memory linear in the sequence.

`common.engine.twice.policy` says which kernel runs. Models of transformers come to it by `common.language.attention`,
those of diffusers by `common.engine.twice.processor`.

One head of the twice-differentiable kernel, with the scale already in Q and the mask M (0 or very negative):

    P = softmax(Q K' + M)      O = P V
    first, from dO:            D = dO V',  S = P * (D - <P, D>),  dQ = S K,  dK = S' Q,  dV = P' dO
    second, from A, B, C (the gradients of dQ, dK, dV):
                               T = A K' + Q B',  U = P * (T - <P, T>)              the tangents of scores and of P
                               W = (T - <P, T>) * (D - <P, D>) + dO C',  R = P * (W - <P, W>)
                               to dO: U V + P C   to Q: R K + S B   to K: R' Q + S' A   to V: U' dO

' transposes, <,> sums over the keys of a query. All of it goes block by block over the queries; a block's P is rebuilt
from Q and K in each derivative, or kept where that is the smaller part of what is kept.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.engine.twice.policy import Need, needed

BLOCK_QUERIES = 64  # causal blocks skip the keys after their last query; smaller blocks starve the matrix products
BLOCK_ENTRIES = 2**18  # of P: what a block computes with should stay in the cache
KEPT_KEYS = 2  # per entry of a key vector: up to here P is smaller than Q, K and V together, and kept


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scaling: float | None = None,
    dropout: float = 0.0,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention by the kernel that the needed derivatives allow.

    Args:
        query: [rows, heads, queries, dim].
        key: [rows, key heads, keys, dim]; heads is a multiple of key heads.
        value: [rows, key heads, keys, value dim].
        mask: broadcasts to [rows, heads, queries, keys]; True where a query sees a key, or added to the scores; it
            replaces `causal`.
        causal: a query sees no later key; aligned at the end, so that the last query sees all keys.
        scaling: of the scores; dim ** -0.5 by default.
        dropout: probability of dropping a weight, 0 outside training.
        weights: give the weights as well, by plain operations.

    Returns:
        Output [rows, heads, queries, value dim]; weights [rows, heads, queries, keys], None where a kernel has none.

    Raises:
        ValueError: there are more queries than keys in causal attention.
    """
    if torch.is_autocast_enabled(query.device.type):  # rotary positions leave queries and keys wider than values
        narrow = torch.get_autocast_dtype(query.device.type)
        query, key, value = (x.to(narrow) if x.dtype is torch.float32 else x for x in (query, key, value))
    causal = causal and mask is None
    if causal and query.shape[2] > key.shape[2]:
        raise ValueError(f"causal attention of {query.shape[2]} queries to {key.shape[2]} keys: pass a mask")
    if mask is not None and mask.dtype == torch.bool:
        mask = additive(mask, query.dtype)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    transformed = torch._C._functorch.maybe_current_level() is not None  # inside vmap, grad, jvp, ... of torch.func
    plain = dropout or weights or transformed or (mask is not None and mask.requires_grad)
    need = Need.plain if plain else needed()
    if need is Need.first:
        return _fused(query, key, value, mask, causal, scaling), None
    if need is Need.plain:
        return _plain(query * scaling, key, value, mask, causal, dropout)
    return _twice(query * scaling, key, value, mask, causal), None


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, else the lowest finite number: a query that sees nothing gets the mean of all, as in eager."""
    return torch.zeros((), dtype=dtype, device=seen.device).where(seen, torch.finfo(dtype).min)


def _later(queries: int, keys: int, like: Tensor) -> Tensor:
    """[queries, keys]: -inf where the key comes after the query, else 0; aligned at the end."""
    return torch.full((queries, keys), -torch.inf, dtype=like.dtype, device=like.device).triu(1 + keys - queries)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The precision of softmax: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _repeated(query: Tensor, *tensors: Tensor) -> Iterator[Tensor]:
    """Keys and values with as many heads as the queries have."""
    group = query.shape[1] // tensors[0].shape[1]
    return (x.repeat_interleave(group, 1) if group > 1 else x for x in tensors)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scaling: float) -> Tensor:
    """Torch's kernels, which have no second derivative and no weights."""
    key, value = _repeated(query, key, value)
    queries, keys = query.shape[2], key.shape[2]
    if causal and queries < keys:  # they would align at the start
        mask, causal = _later(queries, keys, query), False
    return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scaling)


def _plain(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> tuple[Tensor, Tensor]:
    """Composite operations, which have all derivatives, and the weights."""
    key, value = _repeated(query, key, value)
    scores = query @ key.mT
    if causal:
        mask = _later(query.shape[2], key.shape[2], query)
    if mask is not None:
        scores = scores + mask
    weights = functional.dropout(scores.softmax(-1, dtype=_wide(scores.dtype)).to(value.dtype), dropout)
    return weights @ value, weights


def _twice(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The kernel of this module; heads that share a key head are a group of queries to it."""
    rows, heads, queries, _ = query.shape
    folded = query.reshape(rows * key.shape[1], -1, queries, query.shape[-1])
    blocks = _blocks(folded, key, mask, causal)
    output: Tensor = _apply(_Attention, folded, key.flatten(0, 1), value.flatten(0, 1), blocks)
    return output.view(rows, heads, queries, -1)


class _Block(NamedTuple):
    """A part of the probabilities; `mask` is added to the scores of its last keys."""

    rows: slice
    queries: slice
    keys: slice
    mask: Tensor | None

    def view(self, x: Tensor) -> Tensor:
        """What belongs to the block of [rows, group, queries, dim] or of [rows, keys, dim]."""
        return x[self.rows, :, self.queries] if x.dim() == 4 else x[self.rows, self.keys]

    def parts(self, *tensors: Tensor) -> Iterator[Tensor]:
        """The same with each group's queries in one dimension, ready for products of matrices."""
        return (self.view(x).flatten(1, -2) for x in tensors)

    def probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        """[rows, group * queries, keys], in the precision of softmax."""
        q, k = self.parts(query, key)
        scores = torch.bmm(q, k.mT).to(_wide(q.dtype))
        if self.mask is not None:
            shape = (-1, *self.mask.shape[1:-1], scores.shape[-1])
            scores.view(shape)[..., -self.mask.shape[-1] :].add_(self.mask)
        return scores.softmax(-1)


def _blocks(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> list[_Block]:
    """Blocks that cover all queries [rows * key heads, group, queries, dim] of keys [rows, key heads, keys, dim]."""
    (rows, heads, keys, _), (_, group, queries, _) = key.shape, query.shape
    step = min(queries, BLOCK_QUERIES)
    height = max(1, BLOCK_ENTRIES // (heads * group * step * keys))
    if mask is not None:
        mask = mask.detach().expand(rows, heads * group, queries, keys).view(rows, heads, group, queries, keys)
    triangle = _later(step, step, query).unsqueeze(0)  # a causal block's last keys are its queries; all see the others
    blocks = []
    for row, start in product(range(0, rows, height), range(0, queries, step)):
        stop = min(start + step, queries)
        part = triangle[:, : stop - start, : stop - start] if causal else None
        part = part if mask is None else mask[row : row + height, :, :, start:stop]
        seen = slice(0, keys - queries + stop if causal else keys)
        blocks.append(_Block(slice(row * heads, (row + height) * heads), slice(start, stop), seen, part))
    return blocks


def _over_blocks(
    blocks: list[_Block], compute: Callable[[int], tuple[Tensor, ...]], like: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Sums over the blocks of what `compute` gives for a block's index; sum n is shaped as `like[n]`."""
    if len(blocks) == 1:
        return tuple(part.view(whole.shape) for part, whole in zip(compute(0), like, strict=True))
    totals = [torch.zeros_like(whole, dtype=_wide(whole.dtype)) for whole in like]
    for index, block in enumerate(blocks):
        for total, part in zip(totals, compute(index), strict=True):
            target = block.view(total)
            target += part.view_as(target)
    return tuple(total.to(whole.dtype) for total, whole in zip(totals, like, strict=True))


def _apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    return function.apply(*args)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Q [rows * key heads, group, queries, dim], K and V [rows * key heads, keys, dim] -> output, shaped as Q."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: list[_Block]) -> Tensor:
        kept = []

        def compute(index: int) -> tuple[Tensor]:
            p = blocks[index].probabilities(query, key)
            if key.shape[1] <= KEPT_KEYS * key.shape[2]:
                kept.append(p)
            return (torch.bmm(p.to(value.dtype), blocks[index].view(value)),)

        (output,) = _over_blocks(blocks, compute, (value.new_empty(1).expand(*query.shape[:-1], value.shape[-1]),))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.blocks = blocks
        return output

    @staticmethod
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        return *_apply(_Gradients, ctx.blocks, d_output, *ctx.saved_tensors), None


class _Gradients(torch.autograd.Function):
    """The first derivative of `_Attention`, with respect to its inputs."""

    @staticmethod
    def forward(
        ctx: Any, blocks: list[_Block], d_output: Tensor, query: Tensor, key: Tensor, value: Tensor, *kept: Tensor
    ) -> tuple[Tensor, ...]:
        def compute(index: int) -> tuple[Tensor, ...]:
            block = blocks[index]
            p = kept[index] if kept else block.probabilities(query, key)
            q, k, v, do = block.parts(query, key, value, d_output)
            d = torch.bmm(do, v.mT).to(p.dtype)
            s = torch._softmax_backward_data(d, p, -1, p.dtype).to(q.dtype)
            return torch.bmm(s, k), torch.bmm(s.mT, q), torch.bmm(p.to(v.dtype).mT, do)

        ctx.save_for_backward(d_output, query, key, value, *kept)
        ctx.blocks = blocks
        return _over_blocks(blocks, compute, (query, key, value))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_apply(_Second, ctx.blocks, *gradients, *ctx.saved_tensors)


class _Second(torch.autograd.Function):
    """The derivative of `_Gradients`, with respect to its inputs; a node of its own so that a third is refused."""

    @staticmethod
    def forward(ctx: Any, blocks: list[_Block], *tensors: Tensor) -> tuple[Tensor | None, ...]:
        d_query, d_key, d_value, d_output, query, key, value, *kept = tensors

        def compute(index: int) -> tuple[Tensor, ...]:
            block = blocks[index]
            p = kept[index] if kept else block.probabilities(query, key)
            q, k, v, do, a, b, c = block.parts(query, key, value, d_output, d_query, d_key, d_value)
            d = torch.bmm(do, v.mT).to(p.dtype)
            scratch = p * d
            d -= scratch.sum(-1, keepdim=True)
            t = torch.bmm(a, k.mT).baddbmm_(q, b.mT).to(p.dtype)
            t -= torch.mul(p, t, out=scratch).sum(-1, keepdim=True)
            w = torch.bmm(do, c.mT).to(p.dtype).addcmul_(t, d)
            r = torch._softmax_backward_data(w, p, -1, p.dtype)
            r, s, u, p = (x.to(q.dtype) for x in (r, d.mul_(p), t.mul_(p), p))
            return (
                torch.bmm(u, v).baddbmm_(p, c),
                torch.bmm(r, k).baddbmm_(s, b),
                torch.bmm(r.mT, q).baddbmm_(s.mT, a),
                torch.bmm(u.mT, do),
            )

        return *_over_blocks(blocks, compute, (d_output, query, key, value)), *(None for _ in kept)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError("this attention has no third derivative; with needing(Need.plain) it has")
