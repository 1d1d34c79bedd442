"""Worst cases of two-layer networks f(x) = sum_r a_r relu(<w_r, x> + b_r): exact on arcs of X (d = 3), and bounds that
hold in any dimension by intervals and by linear relaxation (Zhang et al., CROWN, NeurIPS 2018).

    PGD <= exact <= CROWN, intervals

Shapes are those of `fal.theorem.network`: weights [..., m, d], a and b [..., m], points [..., points, d]; leading axes
broadcast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

INSIDE = 1e-9
"""Share of the way to the middle of its segment by which a maximiser leaves a kink: there the ReLUs are of one side."""
TIE = 1e-12
"""Both sides of a kink have one value but for rounding: by how much one is preferred, so that it is always that."""
Waves = tuple[Tensor, Tensor, Tensor]
"""p, q, s of p cos u + q sin u + s."""
Support = Callable[[Tensor], Tensor]
"""Vectors [..., m, d] -> the largest <w, x'> over the region around each point [..., points, m]."""


class Arcs:
    """Arcs of X around points, cut where ReLUs of a layer switch; all in float64.

    At the angle u from its centre, -half <= u <= half, <w, x(u)> + b = p cos u + q sin u + s. Only neurons that may
    switch within the arc have kinks there, so what is sorted is short whatever the width.
    """

    def __init__(self, weights: Tensor, bias: Tensor, x: Tensor, half: float) -> None:
        """Cut the arcs around `x` by the layer of `weights` and `bias`."""
        self.half = half
        self._x = x.double()
        self.own = p, q, s = self.waves(weights, bias)
        self._left = (p * math.cos(half) - q * math.sin(half) + s >= 0).double()
        may = (p + s).abs() <= p.abs() * (1 - math.cos(half)) + q.abs() * math.sin(half)
        most = int(may.sum(-1).max())
        index = may.to(torch.uint8).topk(most).indices
        p, q, s = (wave.expand(may.shape).gather(-1, index) for wave in (p, q, s))
        size, middle = torch.hypot(p, q), torch.atan2(q, p)
        width = torch.acos((-s / size).clamp(-1, 1))
        kinks = _wrapped(torch.cat([middle - width, middle + width], -1))  # goes on, goes off
        there = (kinks.abs() < half) & torch.cat([s.abs() < size] * 2, -1)
        kinks = torch.where(there, kinks, half)
        kinks, order = kinks.sort(-1)
        signs = torch.cat([torch.ones_like(p), -torch.ones_like(p)], -1) * there
        self._signs, self._who = signs.gather(-1, order), torch.cat([index, index], -1).gather(-1, order)
        edge = torch.full_like(self._left[..., :1].expand(*may.shape[:-1], 1), half)
        self._starts, self._ends = torch.cat([-edge, kinks], -1), torch.cat([kinks, edge], -1)

    def waves(self, vectors: Tensor, offset: Tensor) -> Waves:
        """p, q and s of <v_r, x(u)> + c_r at every point [..., points, m]."""
        first, second, third = vectors.double().movedim(-1, 0).contiguous()[..., None, :]
        x, y, height = (each[..., None] for each in self._x.unbind(-1))
        return x * first + y * second, x * second - y * first, height * third + offset.double()[..., None, :]

    def largest(self, waves: Waves, outer: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The angle u from each centre at which |sum_r a_r 1[r is on] wave_r(u) - y| is largest, and that.

        With the layer's `own` waves this is |f - y|; with those of W - W(0) the pseudo-network's, which jumps at kinks:
        the value is the supremum, the angle beside the kink.
        """
        p, q, s = (self._pieces(wave * outer.double()[..., None, :]) for wave in waves)
        turning = torch.atan2(q, p)
        turning = turning - math.pi * torch.round(turning / math.pi)  # of maximum or minimum, the one within a quarter
        places = torch.stack([self._starts, self._ends, turning.clamp(self._starts, self._ends)])
        sizes = (p * places.cos() + q * places.sin() + s - y.double()[..., None]).abs().movedim(0, -2)
        which = (sizes - TIE * torch.arange(3)[:, None]).flatten(-2).argmax(-1)
        value = sizes.flatten(-2).gather(-1, which[..., None])[..., 0]
        flat = places.movedim(0, -2).flatten(-2).gather(-1, which[..., None])[..., 0]
        segment = (which % self._starts.shape[-1])[..., None]
        middle = ((self._starts + self._ends).expand_as(p) / 2).gather(-1, segment)[..., 0]
        return torch.where(flat.abs() < self.half, flat + INSIDE * (middle - flat), flat), value

    def _pieces(self, wave: Tensor) -> Tensor:
        """Sums over the neurons that are on in every segment."""
        first = (wave * self._left).sum(-1, keepdim=True)
        shape = (*first.shape[:-1], self._who.shape[-1])
        changes = wave.expand(*first.shape[:-1], -1).gather(-1, self._who.expand(shape)) * self._signs
        return torch.cat([first, changes], -1).cumsum(-1)

    def at(self, angle: Tensor) -> Tensor:
        """The points at an angle from the centres [..., points, 3], in float64."""
        x, y, height = self._x.unbind(-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * x - sin * y, cos * y + sin * x, height.expand_as(angle)], -1)


def exact_arc(weights: Tensor, outer: Tensor, bias: Tensor, x: Tensor, y: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """The point of each arc of X (d = 3, `half` on either side of x) where |f - y| is largest, and that [..., points].

    Between kinks f is one sinusoid, so its largest value is among the kinks, the ends and the turning points: no grid.
    It is the worst case of every loss that grows with |f - y|.
    """
    arcs = Arcs(weights, bias, x, half)
    angle, value = arcs.largest(arcs.own, outer, y)
    return arcs.at(angle).to(x.dtype), value


def cap(x: Tensor, half: float) -> Support:
    """The cap of X within the angle `half` of each x."""
    flat = x[..., :-1]
    radius = flat.norm(dim=-1, keepdim=True)
    unit = flat / radius

    def support(w: Tensor) -> Tensor:
        own = w[..., :-1]
        along = unit @ own.mT
        across = (own.square().sum(-1)[..., None, :] - along.square()).clamp(min=0).sqrt()
        within = torch.atan2(across, along) <= half
        top = torch.where(within, torch.hypot(along, across), along * math.cos(half) + across * math.sin(half))
        return radius * top + x[..., -1:] * w[..., None, :, -1]

    return support


def ball(x: Tensor, rho: float, norm: float = 2.0) -> Support:
    """The ball of radius `rho` in L2 (`norm` 2) or L-infinity (`norm` inf) around each x."""
    dual = 2.0 if norm == 2 else 1.0
    return lambda w: x @ w.mT + rho * w.norm(dual, -1)[..., None, :]


@dataclass(frozen=True)
class Bounds:
    """f lies between `low` and `high` [..., points] everywhere in the region."""

    low: Tensor
    high: Tensor

    def worst(self, y: Tensor) -> Tensor:
        """What |f - y| cannot exceed."""
        return torch.maximum(self.high - y, y - self.low)


def interval_bounds(weights: Tensor, outer: Tensor, bias: Tensor, support: Support) -> Bounds:
    """Every ReLU between its own extremes, as if each had a worst point of its own."""
    low, high = (torch.relu(each) for each in _range(weights, bias, support))
    outer = outer[..., None, :]
    up, down = outer.clamp(min=0), outer.clamp(max=0)
    return Bounds((up * low + down * high).sum(-1), (up * high + down * low).sum(-1))


def crown_bounds(weights: Tensor, outer: Tensor, bias: Tensor, support: Support) -> Bounds:
    """Every ReLU between two lines, then one worst point for the sum of the lines."""
    low, high = _range(weights, bias, support)
    off, on = high <= 0, low >= 0
    chord = torch.where(on, 1.0, torch.where(off, 0.0, high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)))
    lift = torch.where(on | off, 0.0, -chord * low)
    below = torch.where(on | off, chord, (high > -low).to(low.dtype))
    outer = outer[..., None, :]

    def upper(a: Tensor) -> Tensor:
        slopes = torch.where(a > 0, chord, below) * a
        most = support(slopes @ weights).diagonal(dim1=-2, dim2=-1)  # of each point's own line
        return most + (slopes * bias[..., None, :] + a.clamp(min=0) * lift).sum(-1)

    return Bounds(-upper(-outer), upper(outer))


def _range(weights: Tensor, bias: Tensor, support: Support) -> tuple[Tensor, Tensor]:
    offset = bias[..., None, :]
    return offset - support(-weights), offset + support(weights)


def _wrapped(angle: Tensor) -> Tensor:
    """The same angle within half a turn."""
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))
