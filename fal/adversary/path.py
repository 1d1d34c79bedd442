"""What an attack knows of its items while they climb."""

import torch
from torch import Tensor

Path = dict[str, Tensor]
"""Tensors with a row an item: `x` clean points, `at` where they are, `gradient` and `gain` there, `rows` which items
they are, and what a way to climb keeps beside; an item that leaves takes its row from each."""


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of items, [items], in a shape that broadcasts to points."""
    return values.view(-1, *[1] * (like.dim() - 1))


def choose(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """`one` for the items of `which`, [items], and `other` for the rest."""
    return torch.where(wide(which, one), one, other)
