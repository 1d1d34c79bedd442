"""Ragged rows as rectangular tensors, without changing a number."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reckoning.templates import Row


@dataclass(frozen=True)
class Rows:
    """Token rows, padded on the right; with a leading task axis when several tasks are stacked.

    Padding sits behind every scored token, so causal attention never sees it and no attention mask is needed.
    """

    ids: Tensor
    """int64 [(tasks,) rows, length]"""
    scored: Tensor
    """float [(tasks,) rows, length]: 1 where the token is predicted and scored."""
    weight: Tensor
    """float [(tasks,) rows]: share of the row in its task's mean; 0 for rows that only fill up."""


def to_rows(rows: Sequence[Row], *, pad: int, device: torch.device, dtype: torch.dtype) -> Rows:
    """One task: all rows weigh the same."""
    return _fill([rows], pad, device, dtype, squeeze=True)


def to_stack(tasks: Sequence[Sequence[Row]], *, pad: int, device: torch.device, dtype: torch.dtype) -> Rows:
    """Several tasks with a leading task axis; a task with fewer rows is filled with rows of weight 0."""
    return _fill(tasks, pad, device, dtype, squeeze=False)


def _fill(tasks: Sequence[Sequence[Row]], pad: int, device: torch.device, dtype: torch.dtype, squeeze: bool) -> Rows:
    most = max(len(rows) for rows in tasks)
    length = max(len(row.ids) for rows in tasks for row in rows)
    ids = torch.full((len(tasks), most, length), pad)
    scored = torch.zeros(len(tasks), most, length, dtype=dtype)
    weight = torch.zeros(len(tasks), most, dtype=dtype)
    for t, rows in enumerate(tasks):
        weight[t, : len(rows)] = 1 / len(rows)
        for r, row in enumerate(rows):
            ids[t, r, : len(row.ids)] = torch.tensor(row.ids)
            scored[t, r, row.scored_from : len(row.ids)] = 1
    tensors = [t.squeeze(0) if squeeze else t for t in (ids, scored, weight)]
    return Rows(*(t.to(device, non_blocking=True) for t in tensors))
