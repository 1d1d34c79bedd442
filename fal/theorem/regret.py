"""The online argument of the proof (section 1.8, item 5): the best fixed U*, and what the run loses against it.

With e = eta_global eta_local K m^(1/3) and R = m^(1/6) ||U* - U(0)||_F, for every t

    (1/t) sum_(s<t) [ L(g_U(s); S~(s)) - L(g_U*; S~(s)) ]  <=  R^2 / (2 e t) + e / 2

in the limit of wide networks, and at any width if the pseudo-network g is what is trained. Of the real network at a
finite width the coupling of f and g adds to the right-hand side (`Regret`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fal.certify import Arcs
from fal.theorem.network import Loss, Network
from fal.theorem.points import Points

STALLED = 10
"""Steps without the hoped for improvement, after which less is hoped for."""


@dataclass(frozen=True)
class Fixed:
    """A fixed U* of every run."""

    weights: Tensor
    """[runs, m, d], of the network's precision."""
    robust: Tensor
    """L_(A*)(g_U*), the exact robust loss of the pseudo-network [runs]."""
    distance: Tensor
    """R = m^(1/6) ||U* - U(0)||_F [runs]."""


def best_fixed(network: Network, points: Points, loss: Loss, half: float, horizon: float, steps: int) -> Fixed:
    """The U* that makes the theorem's promise smallest: it minimises L_(A*)(g_U) + R^2 / (2 horizon) over all U, which
    is convex, by projected subgradient steps whose adversary is exact (d = 3).

    A step aims at a level below the best value so far (Polyak); the level comes closer where it is not reached. The
    projection is onto the ball in which the minimiser must lie.

    Args:
        network: of `runs` runs.
        points: of all clients.
        loss: of a residual.
        half: of the arcs on either side of a point.
        horizon: e T.
        steps: number of steps.
    """
    width, wide = network.width, Network(network.outer.double(), network.bias.double(), network.start.double())
    x, y = (each.double()[None] for each in (points.all().x, points.all().y))
    arcs = Arcs(wide.start, wide.bias, x, half)
    pull = width ** (1 / 3) / horizon
    moved = torch.zeros_like(wide.start)
    best = torch.full((len(moved),), torch.inf, dtype=torch.float64)
    best_moved, robust, hope, stalled = moved, best, best, torch.zeros_like(best)
    radius = None
    for _ in range(steps):
        angle, size = arcs.largest(arcs.waves(moved, torch.zeros_like(wide.bias)), wide.outer, y)
        worst = loss.value(size).mean((1, 2))
        value = worst + pull / 2 * _square(moved)
        hope = torch.where(hope.isinf(), value / 2, hope)
        radius = (2 * value / pull).sqrt() if radius is None else radius
        stalled = torch.where(value < best - hope / 2, 0.0, stalled + 1)
        better = value < best
        best, robust = torch.where(better, value, best), torch.where(better, worst, robust)
        best_moved = torch.where(_spread(better), moved, best_moved)
        moved = torch.where(_spread(stalled >= STALLED), best_moved, moved)
        again = stalled >= STALLED
        hope, stalled = torch.where(again, hope / 2, hope), torch.where(again, 0.0, stalled)

        at = arcs.at(angle)
        slopes = loss.slope(wide.pseudo(wide.start + moved, at) - y)
        gradient = wide.gradient(wide.active(wide.start, at), slopes, at) + pull * moved
        length = (value - best + hope) / _square(gradient).clamp(min=1e-30)
        moved = moved - _spread(length) * gradient
        moved = moved * _spread((radius / _square(moved).sqrt().clamp(min=1e-30)).clamp(max=1))
    distance = width ** (1 / 6) * _square(best_moved).sqrt()
    return Fixed((wide.start + best_moved)[:, 0].to(network.start.dtype), robust, distance)


class Regret:
    """What a run has lost against the best fixed U* after each round, what the theorem allows, and what separates the
    two at finite width. For every t, whatever the width and the local steps,

        regret <= R^2 / (2 e t) + (e / 2) G^2 + coupling    with G^2 = m^(-1/3) mean_s ||h_s||_F^2 (at most 1 for K = 1)

    where h_s is the FL gradient, (U(s) - U(s+1)) / (eta_global eta_local K), and coupling the mean of
    <grad L(g_U(s)) - h_s, U(s) - U*>: what the surrogate's gradient has over the one that the server got. Part of it
    comes of slopes l' that f and g do not share, the rest of ReLUs that have switched since the start.
    """

    def __init__(self, network: Network, loss: Loss, fixed: Fixed, step: float) -> None:
        """`step` is e."""
        self.network, self.loss, self.fixed, self.step = network, loss, fixed, step
        self.rounds = 0
        nothing = torch.zeros(len(fixed.distance)).double()
        self._lost, self._coupling, self._slopes, self._square = (nothing.clone() for _ in range(4))
        self._over, self._over_coupled = nothing - torch.inf, nothing - torch.inf

    def add(self, before: Tensor, after: Tensor, x: Tensor, y: Tensor) -> None:
        """Count a round: U(s), U(s + 1) [runs, m, d], S~(s) [runs, n, d] and its labels [n]."""
        own, best = (self.network.pseudo(w[:, None], x[:, None])[:, 0] for w in (before, self.fixed.weights))
        said = self.network.predict(before[:, None], x[:, None])[:, 0]
        slope, real = self.loss.slope(own - y), self.loss.slope(said - y)
        self.rounds += 1
        self._lost += (self.loss.value(own - y) - self.loss.value(best - y)).mean(-1)
        gradient = (before - after).double() * (self.network.width ** (1 / 3) / self.step)
        along = (gradient * (before - self.fixed.weights)).sum((1, 2))
        self._coupling += (slope * (own - best)).mean(-1) - along
        self._slopes += ((slope - real) * (own - best)).mean(-1)
        self._square += gradient.square().sum((1, 2))
        now = self._now()
        self._over = torch.maximum(self._over, now["regret"] - now["regret_bound"])
        self._over_coupled = torch.maximum(self._over_coupled, now["regret"] - now["regret_bound_coupled"])

    @property
    def measured(self) -> dict[str, Tensor]:
        """After the rounds so far, of every run [runs]; the two `over` are the largest of all rounds."""
        return {**self._now(), "regret_over": self._over, "regret_over_coupled": self._over_coupled}

    def _now(self) -> dict[str, Tensor]:
        t = max(self.rounds, 1)
        start = self.fixed.distance.square() / (2 * self.step * t)
        noise = self.step / 2 * self._square * self.network.width ** (-1 / 3) / t
        return {
            "regret": self._lost / t,
            "regret_bound": start + self.step / 2,
            "regret_coupling": self._coupling / t,
            "regret_slopes": self._slopes / t,
            "regret_bound_coupled": start + noise + self._coupling / t,
        }


def _square(moved: Tensor) -> Tensor:
    return moved.square().sum((1, 2, 3))


def _spread(each: Tensor) -> Tensor:
    return each[:, None, None, None]
