"""Rows of different lengths as one row without padding; attention stays within each segment.

A segment is what a row becomes in the packed row. Positions start again at 0 in each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from common.engine.twice.policy import ATTENTION

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Query [rows, heads, tokens, dim], key, value, mask [rows, 1 or heads, tokens, tokens] -> output as query, weights."""


@dataclass(frozen=True)
class Packed:
    """Rows laid end to end."""

    ids: Tensor
    """Shape [1, tokens]."""
    position_ids: Tensor
    """Position within the segment; shape [1, tokens]."""
    row: Tensor
    """The row that each token came from; shape [tokens]. Token t predicts t + 1 only where both have the same."""
    cu_seq_lens: Tensor
    """0, then the end of each segment; shape [rows + 1], int32, always on the CPU, where attention reads it."""

    def inputs(self, model: nn.Module) -> dict[str, Tensor]:
        """Keyword arguments for the forward pass of a Hugging Face `model`; a cache is of no use and left out.

        Raises:
            ValueError: the model's attention would look across segments.
        """
        if (found := getattr(model.config, "_attn_implementation", None)) != ATTENTION:
            raise ValueError(f"attn_implementation={found!r} does not know packed rows: use {ATTENTION!r}")
        return {
            "input_ids": self.ids,
            "position_ids": self.position_ids,
            # without a mask transformers would notice the positions and make one of [tokens, tokens]
            "attention_mask": torch.ones_like(self.ids),
            "cu_seq_lens_q": self.cu_seq_lens,
            "cu_seq_lens_k": self.cu_seq_lens,
        }


def pack(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Packed:
    """Lay token ids end to end, in the order given; attention is quickest if rows of one length are neighbours.

    Raises:
        ValueError: there is no row, or an empty one.
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    if len(rows) == 0 or 0 in lengths:
        raise ValueError(f"cannot pack rows of lengths {lengths.tolist()}: each needs a token")
    ends = lengths.cumsum(0, dtype=torch.int32)
    row = torch.repeat_interleave(lengths)
    positions = torch.arange(len(row)) - (ends - lengths)[row]
    return Packed(
        ids=torch.tensor([token for tokens in rows for token in tokens], device=device).unsqueeze(0),
        position_ids=positions.to(device).unsqueeze(0),
        row=row.to(device),
        cu_seq_lens=torch.cat([ends.new_zeros(1), ends]),
    )


def per_segment(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, cu_seq_lens: Tensor
) -> Tensor:
    """`attend` on each segment alone, those of one length together: the cost is a sum over segments.

    Args:
        attend: attention of whole rows.
        query: [1, heads, tokens, dim].
        key: [1, key heads, tokens, dim].
        value: [1, key heads, tokens, value dim].
        mask: broadcasts to [1, heads, tokens, tokens]; what it says within segments holds there.
        cu_seq_lens: 0, then the end of each segment; shape [segments + 1].

    Returns:
        Output [1, heads, tokens, value dim].

    Raises:
        ValueError: the segments do not cover one row of queries and keys.
    """
    ends, (rows, _, tokens, _) = cu_seq_lens.tolist(), query.shape
    if (rows, ends[0], ends[-1], key.shape[2]) != (1, 0, tokens, tokens):
        raise ValueError(
            f"segments from {ends[0]} to {ends[-1]} do not cover {rows} row(s) of {tokens} queries and "
            f"{key.shape[2]} keys: packed rows are one row, without a cache"
        )
    segments = sorted(pairwise(ends), key=_length)
    order = torch.cat([torch.arange(*segment) for segment in segments]).to(query.device)
    moved = segments != list(pairwise(ends))
    query, key, value = (x.index_select(2, order) if moved else x for x in (query, key, value))
    if mask is not None:
        mask = mask.expand(-1, -1, tokens, tokens)
    outputs, start = [], 0
    for length, group in groupby(segments, _length):
        same = list(group)
        stop = start + length * len(same)
        q, k, v = (
            x[0, :, start:stop].reshape(x.shape[1], len(same), length, -1).transpose(0, 1) for x in (query, key, value)
        )
        within = None if mask is None else torch.stack([mask[0, :, a:b, a:b] for a, b in same])
        outputs.append(attend(q, k, v, within)[0].transpose(0, 1).flatten(1, 2))
        start = stop
    output = torch.cat(outputs, 1).unsqueeze(0)
    return output.index_select(2, order.argsort()) if moved else output


def _length(segment: tuple[int, int]) -> int:
    return segment[1] - segment[0]
