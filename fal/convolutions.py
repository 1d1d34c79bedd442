"""The gradient of a convolution by its input, as products and a fold where torch's kernel for it is slow on a CPU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import fold

BACKWARD = torch.ops.aten.convolution_backward.default


def input_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Any:
    """For `BACKWARD` when it is traced, with its arguments: the products of every output's gradient with the weights,
    added up where their windows overlap. `NotImplemented` leaves the operation as it is.
    """
    if wanted[0] is False or any(wanted[1:]) or transposed or not slow(weight, groups):
        return NotImplemented
    items, channels = gradient.shape[:2]
    columns = weight.reshape(groups, channels // groups, -1).transpose(1, 2)
    products = torch.matmul(columns, gradient.reshape(items, groups, channels // groups, -1))
    sizes = x.shape[2:], weight.shape[2:], dilation, padding, stride
    return fold(products.flatten(1, 2), *map(tuple, sizes)), None, None


def slow(weight: Tensor, groups: int) -> bool:
    """Whether torch's own kernel is the slower one, measured on a CPU: an input of few channels, as images have."""
    return weight.device.type == "cpu" and weight.dim() == 4 and weight.shape[1] <= 4
