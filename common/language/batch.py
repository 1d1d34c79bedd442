"""Ragged rows as rectangular tensors, without changing a number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LENGTHS = 16
"""Compiled programs are made for one shape: rows are padded to a multiple of this, so that there are few."""
Shares = Sequence[float]
"""Share of each row in its task's mean."""


@dataclass(frozen=True)
class Row:
    """One sequence: token `ids`, of which those from `scored_from` on are predicted and scored."""

    ids: tuple[int, ...]
    scored_from: int
    answer_tokens: int = 0
    """How many of the scored tokens, the first ones, are the answer's own."""
    name: str = field(compare=False, default="")

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens that are given."""
        return self.ids[: self.scored_from]


class Rows(NamedTuple):
    """Token rows, padded on the right; with a leading task axis when several tasks are stacked.

    Padding sits behind every scored token, so causal attention never sees it and no attention mask is needed.
    """

    ids: Tensor
    """int64 [(tasks,) rows, length]"""
    scored: Tensor
    """float [(tasks,) rows, length]: weight of the token in its row's mean, 0 where it is given; at least float32."""
    weight: Tensor
    """float [(tasks,) rows]: share of the row in its task's mean; 0 for rows that only fill up."""


def tensors_for(network: nn.Module, pad: int, answer_weight: float = 1.0) -> dict[str, Any]:
    """Keyword arguments of `to_rows` and `to_stack` for rows that `network` reads."""
    first = next(network.parameters())
    return {"pad": pad, "device": first.device, "dtype": first.dtype, "answer_weight": answer_weight}


def to_rows(
    rows: Sequence[Row],
    *,
    pad: int,
    device: torch.device,
    dtype: torch.dtype,
    shares: Shares | None = None,
    answer_weight: float = 1.0,
    multiple: int = 1,
) -> Rows:
    """One task; `shares=None` weighs all rows the same."""
    own = None if shares is None else [shares]
    stacked = to_stack(
        [rows], pad=pad, device=device, dtype=dtype, shares=own, answer_weight=answer_weight, multiple=multiple
    )
    return Rows(stacked.ids[0], stacked.scored[0], stacked.weight[0])


def to_stack(
    tasks: Sequence[Sequence[Row]],
    *,
    pad: int,
    device: torch.device,
    dtype: torch.dtype,
    shares: Sequence[Shares] | None = None,
    answer_weight: float = 1.0,
    multiple: int = 1,
) -> Rows:
    """Several tasks with a leading task axis; a task with fewer rows is filled with rows of weight 0.

    A token of an answer weighs `answer_weight` in its row's mean, every other scored token 1. The length is padded to a
    multiple of `multiple`.
    """
    most = max(len(rows) for rows in tasks)
    length = -(-max(len(row.ids) for rows in tasks for row in rows) // multiple) * multiple
    ids = torch.full((len(tasks), most, length), pad)
    scored = torch.zeros(len(tasks), most, length, dtype=torch.promote_types(dtype, torch.float32))
    weight = torch.zeros(len(tasks), most, dtype=scored.dtype)
    for t, rows in enumerate(tasks):
        if rows:
            weight[t, : len(rows)] = 1 / len(rows) if shares is None else torch.tensor(shares[t], dtype=scored.dtype)
        for r, row in enumerate(rows):
            ids[t, r, : len(row.ids)] = torch.tensor(row.ids)
            scored[t, r, row.scored_from : len(row.ids)] = 1
            scored[t, r, row.scored_from : row.scored_from + row.answer_tokens] = answer_weight
    return Rows(ids.to(device), scored.to(device), weight.to(device))


def micro_batches(rows: Rows, size: int) -> list[Rows]:
    """The rows in parts of at most `size` (0: one part); their weighted sums add up to that of the whole."""
    count = rows.ids.shape[-2]
    if size == 0 or size >= count:
        return [rows]
    ids, scored = torch.split(rows.ids, size, dim=-2), torch.split(rows.scored, size, dim=-2)
    return [Rows(*part) for part in zip(ids, scored, torch.split(rows.weight, size, dim=-1), strict=True)]
