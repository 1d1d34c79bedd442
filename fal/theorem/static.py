"""The lemmas that need no training: how f and g part at a displacement of size D m^(-2/3) (section 2.3)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fal.adversary.balls import HEIGHT, RADIUS
from fal.theorem.network import Network

GAP = 1 / (4 * math.sqrt(4 * math.pi))
"""One-sided gap over D^2 m^(-1/6) (section 1.8, item 2)."""
FLIPS = 1 / math.sqrt(4 * math.pi)
"""Fraction of flips over D m^(-1/6) (section 1.8, item 3)."""
DIRECTIONS = 10

PREDICTED: dict[str, Callable[[int, float, float], float]] = {
    "one_sided_gap": lambda m, gap_at, _: GAP * gap_at**2 * m ** (-1 / 6),
    "flip_fraction": lambda m, _, flips_at: FLIPS * flips_at * m ** (-1 / 6),
    "start_output": lambda m, *_: m ** (-1 / 3),
}
"""By (m, D of the gap, D of the flips); of the start's output the order alone."""


def random_points(count: int, dim: int, seed: int) -> Tensor:
    """Points of X, uniform [count, dim], float64."""
    unit = torch.randn(count, dim - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    flat = RADIUS * unit / unit.norm(dim=1, keepdim=True)
    return torch.cat([flat, torch.full((count, 1), HEIGHT, dtype=torch.float64)], 1)


def static_lemmas(network: Network, x: Tensor, gap_at: float, flips_at: float) -> dict[str, float]:
    """Of one run, at points [n, d]: the quantities of `PREDICTED`, and how far the kernel is from its limit.

    The gap is the largest |f - f_0 - g| over the points when every neuron with a_r > 0 is displaced towards one of
    them, the worst displacement there is; the mean over `DIRECTIONS` of these. The flips are those at a point towards
    which all neurons are displaced, the mean over points.
    """
    m, outer = network.width, network.outer[0, 0]
    before = x.to(network.start.dtype) @ network.start[0, 0].T + network.bias[0]  # [n, m]
    start = torch.relu(before) @ outer
    up, length = outer > 0, gap_at * m ** (-2 / 3)
    towards = (x @ x[:DIRECTIONS].T).to(outer.dtype).T  # <x, z>
    gaps = [(_curvature(before, length * inner[:, None] * up) @ outer).abs().max() for inner in towards]
    flipped = (before < 0) & (before + flips_at * m ** (-2 / 3) >= 0)
    return {
        "one_sided_gap": float(torch.stack(gaps).mean()),
        "flip_fraction": float(flipped.double().mean()),
        "start_output": float(start.abs().max()),
        "kernel_error": float((kernel(before >= 0, x) - limit_kernel(x)).abs().max()),
    }


def _curvature(before: Tensor, shift: Tensor) -> Tensor:
    """What a ReLU gains over its tangent."""
    return torch.relu(before + shift) - torch.relu(before) - shift * (before >= 0)


def kernel(active: Tensor, x: Tensor) -> Tensor:
    """<grad f(x), grad f(x')> / m^(1/3) [..., n, n] from the ReLUs that are on [..., n, m] and points [..., n, d]."""
    on = active.double()
    return (x @ x.mT).double() * (on @ on.mT) / active.shape[-1]


def limit_kernel(x: Tensor) -> Tensor:
    """Its limit of wide networks: <x, x'> (pi - th) / (2 pi) with cos th = (1 + <x, x'>) / 2."""
    inner = (x @ x.mT).double().clamp(-1, 1)
    return inner * (math.pi - torch.acos((1 + inner) / 2)) / (2 * math.pi)
