"""Adversaries of the theorem: maps from weights and points to points of the cap B_2(x, rho) within X (section 1.4)."""

from collections.abc import Callable
from zlib import crc32

import torch
from torch import Tensor

from common.errors import UserError
from fal.adversary.balls import Cap
from fal.adversary.config import AttackConfig, Kind, Norm, Start
from fal.attack import attack
from fal.theorem.config import AdversaryConfig, AdversaryName
from fal.theorem.network import Network

Moment = tuple[int, int]
"""(round, local step): with it, a place among the points and the restart, random starts are drawn."""
Adversary = Callable[[Tensor, Tensor, Tensor, Moment], Tensor]
"""(weights [runs, clients, m, d], x [1, clients, n, d], y [1, clients, n], moment) -> x~ [runs, clients, n, d]."""


def adversary_of(network: Network, rho: float, config: AdversaryConfig) -> Adversary:
    """The adversary that `config` names.

    Raises:
        UserError: it searches arcs, and X is no circle in this dimension.
    """
    name, dim = config.name, network.start.shape[-1]
    if name in (AdversaryName.exact, AdversaryName.grid) and dim != 3 and rho > 0:
        raise UserError(
            f"adversary.name={name} with problem.dim={dim}: arcs exist in dimension 3 only; use adversary.name=pgd"
        )
    if name is AdversaryName.none or rho == 0:
        return lambda weights, x, y, moment: x.expand(len(network.start), *x.shape[1:])
    half = Cap(rho).widest
    if name is AdversaryName.exact:
        return lambda weights, x, y, moment: network.worst(weights, x, y, half)[0]
    if name is AdversaryName.grid:
        return _grid(network, half, config.angles)
    return _climbing(network, rho, config)


def _grid(network: Network, half: float, angles: int) -> Adversary:
    """The worst of so many angles, spread evenly from one end of the arc to the other."""

    def worst(weights: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        turn = torch.linspace(-half, half, angles, dtype=x.dtype)[:, None]
        first, second, height = (each[..., None, :] for each in x[..., None].unbind(-2))
        around = [first * turn.cos() - second * turn.sin(), first * turn.sin() + second * turn.cos()]
        tried = torch.cat([*around, height.expand_as(around[0])], -1)  # [1, clients, points, angles, 3]
        residual = network.predict(weights, tried.flatten(2, 3)).unflatten(2, tried.shape[2:4]) - y[..., None]
        best = residual.abs().argmax(-1)[..., None, None]
        chosen = best.expand(*best.shape[:-1], 3)
        return tried.expand(len(residual), *tried.shape[1:]).gather(-2, chosen)[..., 0, :]

    return worst


def _climbing(network: Network, rho: float, config: AdversaryConfig) -> Adversary:
    """FGSM from the point itself, PGD from random starts, the same ones in all runs."""
    fgsm = config.name is AdversaryName.fgsm
    settings = AttackConfig(
        kind=Kind.fgsm if fgsm else Kind.pgd,
        norm=Norm.cap,
        eps=rho,
        steps=1 if fgsm else config.steps,
        restarts=1 if fgsm else config.restarts,
        start=Start.none if fgsm else Start.random,
    )

    def worst(weights: Tensor, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        points = x.expand(len(network.start), *x.shape[1:])
        lead = points.shape[:-1]

        def gain(at: Tensor) -> Tensor:
            return (network.predict(weights, at.unflatten(0, lead)) - y).abs().flatten()

        def draws(restart: int) -> Tensor:
            drawn = torch.Generator().manual_seed(crc32(f"{moment}/{restart}".encode()))
            return torch.rand(x.shape, generator=drawn, dtype=torch.float64).to(x).expand_as(points).flatten(0, -2)

        return attack(gain, points.flatten(0, -2), Cap(rho), settings, draws).unflatten(0, lead)

    return worst
