"""Data of the theorem: points of X, their separability, and who holds them (fact sheet, sections 1.3 and 2.4).

X is the unit sphere with the last coordinate 1/2; its first d - 1 coordinates lie on a sphere of radius sqrt(3)/2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError
from fal.adversary.balls import HEIGHT, RADIUS, Cap
from fal.images.distances import closest

TRIES = 100
"""Draws of a point that keeps its distance, before the set is given up."""


@dataclass(frozen=True)
class Points:
    """Labelled points of all clients, in the order of the clients."""

    x: Tensor
    """[clients, points of a client, d]."""
    y: Tensor
    """[clients, points of a client]."""

    @property
    def count(self) -> int:
        """n = NJ."""
        return self.y.numel()

    def all(self) -> "Points":
        """The same as one client's."""
        return Points(self.x.flatten(0, 1)[None], self.y.flatten()[None])


@dataclass(frozen=True)
class Separation:
    """The smallest distance of two points, and which they are."""

    delta: float
    pair: tuple[int, int]

    def gamma(self, rho: float) -> float:
        """gamma = delta (delta - 2 rho) (section 1.3)."""
        return self.delta * (self.delta - 2 * rho)

    def check(self, rho: float, clients: Sequence[int] | Mapping[int, int], key: str = "problem.rho") -> None:
        """Refuse a radius at which balls of two points meet.

        Args:
            rho: Euclidean radius of the adversary.
            clients: whose every point is, by its number.
            key: of the configuration, for the message.

        Raises:
            UserError: delta <= 2 rho; names the two closest points and their clients.
        """
        if self.delta <= 2 * rho:
            first, second = self.pair
            raise UserError(
                f"{key}={rho:.6g}: points {first} (client {clients[first]}) and {second} (client {clients[second]}) "
                f"are only {self.delta:.6g} apart, and the theorem needs more than 2 rho = {2 * rho:.6g}; use a radius "
                f"below {self.delta / 2:.6g}, or leave one of the two points out"
            )


def circle(count: int, turn: float | None = None) -> tuple[Tensor, Tensor]:
    """Points of X in d = 3, neighbours `turn` of a full turn apart (None: spread evenly), labels alternating from 1.

    Returns x [count, 3] and y [count] in float64.

    Raises:
        UserError: an odd number of points, or so many at this spacing that the circle has no room.
    """
    turn = 1 / count if turn is None else turn
    if count % 2 or not 0 < count * turn <= 1 + 1e-9:
        raise UserError(
            f"problem.points={count} with problem.turn={turn:.6g}: use an even number, of which the product with "
            "problem.turn is at most 1"
        )
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi * turn)
    return on_circle(angle), 1.0 - 2.0 * (torch.arange(count) % 2).double()


def on_circle(angle: Tensor) -> Tensor:
    """The points of X at these angles: [..., 3]."""
    return torch.stack([RADIUS * angle.cos(), RADIUS * angle.sin(), torch.full_like(angle, HEIGHT)], -1)


def spread(count: int, dim: int, delta: float, seed: int) -> tuple[Tensor, Tensor]:
    """Random points of X in any dimension whose smallest distance is `delta` exactly, with random labels 1 and -1.

    The first two are `delta` apart, every further one is drawn until it is as far from all before it.

    Returns x [count, dim] and y [count] in float64.

    Raises:
        UserError: no room was found for so many points.
    """
    draw = torch.Generator().manual_seed(seed)
    found = torch.empty(0, dim, dtype=torch.float64)
    turn = Cap(delta).widest
    for index in range(count):
        for _ in range(TRIES):
            unit = torch.randn(dim - 1, generator=draw, dtype=torch.float64)
            if index == 1:
                first = found[0, :-1] / RADIUS
                across = unit - (unit @ first) * first
                unit = math.cos(turn) * first + math.sin(turn) * across / across.norm()
            x = torch.cat([RADIUS * unit / unit.norm(), torch.tensor([HEIGHT], dtype=torch.float64)])
            if index < 2 or (found - x).norm(dim=1).min() >= delta:
                break
        else:
            raise UserError(
                f"problem.points={count}: only {index} points of X in dimension {dim} were found {delta:.4g} apart; "
                "use fewer points, a smaller problem.delta or a larger problem.dim"
            )
        found = torch.cat([found, x[None]])
    return found, torch.randint(2, (count,), generator=draw).double() * 2 - 1


def partition(x: Tensor, y: Tensor, clients: int, one_label: float = 0.0) -> Points:
    """Deal points in their order to clients, each as many; a share `one_label` of the clients gets one label only, as
    far as the labels go: their points are sorted by label before they are dealt.

    Raises:
        UserError: the points cannot be dealt evenly.
    """
    count = len(y)
    if not 1 <= clients <= count or count % clients:
        raise UserError(
            f"problem.clients={clients} with {count} points: every client holds as many; use a number that divides "
            f"{count}"
        )
    each = count // clients
    pooled = round(one_label * clients) * each
    order = torch.cat([torch.argsort(y[:pooled], descending=True, stable=True), torch.arange(pooled, count)])
    return Points(x[order].reshape(clients, each, -1), y[order].reshape(clients, each))


def separation(x: Tensor, y: Tensor) -> Separation:
    """The closest two of the points [n, ...], whatever their labels [n].

    Raises:
        UserError: fewer than two points.
    """
    if len(x) < 2:
        raise UserError(f"{len(x)} point(s): a distance needs two")
    found, _ = closest(x, y)
    return Separation(found.distance, (found.first, found.second))
