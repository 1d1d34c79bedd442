"""Images as another camera would take them: turned, brighter or darker."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def turned(x: Tensor, degrees: float) -> Tensor:
    """Images [items, channels, side, side] turned about their centre, black where nothing was; bilinear."""
    turn = math.radians(degrees)
    along, across = math.cos(turn), math.sin(turn)
    matrix = torch.tensor([[along, -across, 0.0], [across, along, 0.0]], dtype=x.dtype)
    grid = F.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0, 1)


def brightened(x: Tensor, factor: float) -> Tensor:
    """Images with every pixel times `factor`, cut at 1."""
    return (x * factor).clamp(0, 1)
