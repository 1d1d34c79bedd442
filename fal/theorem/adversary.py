"""Adversaries of the theorem: maps from weights and points to points of the cap B_2(x, rho) within X (section 1.4)."""

from collections.abc import Callable

import torch
from torch import Tensor

from common.errors import UserError
from fal.certify import exact_arc
from fal.theorem.config import AdversaryConfig, AdversaryName
from fal.theorem.network import Network
from fal.theorem.points import half_angle

Adversary = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(weights [runs, clients, m, d], x [1, clients, n, d], y [1, clients, n]) -> x~ [runs, clients, n, d]."""


def adversary_of(network: Network, rho: float, config: AdversaryConfig) -> Adversary:
    """The adversary that `config` names.

    Raises:
        UserError: it searches arcs, and X is no circle in this dimension.
    """
    name, dim = config.name, network.start.shape[-1]
    if name in (AdversaryName.exact, AdversaryName.grid) and dim != 3 and rho > 0:
        raise UserError(f"adversary={name} with problem.dim={dim}: arcs exist in dimension 3 only; use adversary=pgd")
    if name is AdversaryName.none or rho == 0:
        return lambda weights, x, y: x.expand(len(network.start), *x.shape[1:])
    half = half_angle(rho)
    if name is AdversaryName.exact:
        return lambda weights, x, y: exact_arc(weights, network.outer, network.bias, x, y, half)[0]
    if name is AdversaryName.grid:
        return _grid(network, half, config.angles)
    raise UserError(f"adversary={name}: not there yet")


def _grid(network: Network, half: float, angles: int) -> Adversary:
    """The worst of so many angles, spread evenly from one end of the arc to the other."""

    def worst(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        turn = torch.linspace(-half, half, angles, dtype=x.dtype)[:, None]
        first, second, height = (each[..., None, :] for each in x[..., None].unbind(-2))
        around = [first * turn.cos() - second * turn.sin(), first * turn.sin() + second * turn.cos()]
        tried = torch.cat([*around, height.expand_as(around[0])], -1)  # [1, clients, points, angles, 3]
        residual = network.predict(weights, tried.flatten(2, 3)).unflatten(2, tried.shape[2:4]) - y[..., None]
        best = residual.abs().argmax(-1)[..., None, None]
        chosen = best.expand(*best.shape[:-1], 3)
        return tried.expand(len(residual), *tried.shape[1:]).gather(-2, chosen)[..., 0, :]

    return worst
