"""Where an adversary may go: balls around clean points, with uniform starts, steepest steps and projections."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fal.adversary.config import AttackConfig, Norm

Box = tuple[float, float]
Projection = Callable[[Tensor], Tensor]
"""Points -> the nearest ones of a ball; may write to what it is given, and return it."""
HEIGHT, RADIUS = 0.5, math.sqrt(3) / 2
"""Last coordinate of the theorem's inputs, and length of the others (sheet, section 1.3)."""


class Ball(Protocol):
    """A set around each clean point x. All tensors are [items, ...] of one shape; everything is per item."""

    @property
    def radius(self) -> float:
        """In the ball's own norm."""
        ...

    def start(self, x: Tensor, draw: Tensor) -> Tensor:
        """A point of the ball, uniformly; `draw`: numbers from [0, 1) of the shape of x."""
        ...

    def step(self, at: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Steepest ascent of that length, a number or [items, 1, ...]; nowhere where the gradient is 0."""
        ...

    def project(self, at: Tensor, x: Tensor) -> Tensor:
        """A point of the ball: `at` itself if it is one, and x exactly where the radius is 0."""
        ...

    def around(self, x: Tensor) -> Projection:
        """`project` for many points around the same x."""
        ...


@dataclass(frozen=True)
class Linf:
    """No entry moves by more than `eps`; all stay in `box`, in which x lies."""

    eps: float
    box: Box | None = (0.0, 1.0)

    @property
    def radius(self) -> float:
        return self.eps

    def start(self, x: Tensor, draw: Tensor) -> Tensor:
        return self.around(x)((2 * draw).sub_(1).mul_(self.eps).add_(x))

    def step(self, at: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        signs = gradient.sign()
        return at + length * signs if isinstance(length, Tensor) else at.add(signs, alpha=length)

    def project(self, at: Tensor, x: Tensor) -> Tensor:
        return self.around(x)(at.clone())

    def around(self, x: Tensor) -> Projection:
        low, high = x - self.eps, x + self.eps
        if self.box is not None:  # it meets the ball, so the order of the two makes no difference
            low, high = low.clamp_(*self.box), high.clamp_(*self.box)
        return lambda at: at.clamp_(low, high)


@dataclass(frozen=True)
class L2:
    """No item moves by more than `eps` in Euclidean length; all entries stay in `box`, in which x lies."""

    eps: float
    box: Box | None = (0.0, 1.0)

    @property
    def radius(self) -> float:
        return self.eps

    def start(self, x: Tensor, draw: Tensor) -> Tensor:
        direction, share = _isotropic(normals(draw), x.shape[1:].numel())
        return self.project(x + self.eps * share * direction, x)

    def step(self, at: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        return at + length * _unit(gradient)

    def project(self, at: Tensor, x: Tensor) -> Tensor:
        """First to the ball, then to the box; the second moves no point away from x, as x lies in the box."""
        moved = at - x
        size = _length(moved)
        inside = torch.where(size > self.eps, x + moved * (self.eps / size.clamp_min(_tiny(at))), at)
        return _boxed(inside, self.box)

    def around(self, x: Tensor) -> Projection:
        return lambda at: self.project(at, x)


@dataclass(frozen=True)
class Cap:
    """At most `rho` in Euclidean length away, on X = {|x| = 1, last coordinate 1/2}; points [items, d], d >= 3.

    Geometry of the sheet, section 2.4: everything happens to the first d - 1 coordinates, which lie on a sphere of
    radius sqrt(3)/2. A chord rho spans the angle 2 asin(rho / sqrt(3)).
    """

    rho: float

    @property
    def radius(self) -> float:
        return self.rho

    @property
    def widest(self) -> float:
        """The largest angle."""
        return 2 * math.asin(min(1.0, self.rho / math.sqrt(3)))

    def start(self, x: Tensor, draw: Tensor) -> Tensor:
        """Uniform in angle and direction as in a flat ball of d - 2 dimensions, which is exact on a circle (d = 3)."""
        head = x[:, :-1] / RADIUS
        direction, share = _isotropic(_tangent(normals(draw)[:, :-1], head), head.shape[1] - 1)
        return _turned(x, head, direction, self.widest * share)

    def step(self, at: Tensor, gradient: Tensor, length: float | Tensor) -> Tensor:
        """Along the great circle of the tangent gradient; `length` is measured on it."""
        head = at[:, :-1] / RADIUS
        direction = _unit(_tangent(gradient[:, :-1], head))
        angle = torch.where(direction.any(1, keepdim=True), length / RADIUS, 0.0)
        return _turned(at, head, direction, angle)

    def project(self, at: Tensor, x: Tensor) -> Tensor:
        """The nearest point of the cap along the great circle to `at`, which may lie off the sphere."""
        centre, out = x[:, :-1] / RADIUS, at[:, :-1]
        across = _tangent(out, centre)
        angle = torch.atan2(_length(across), (out * centre).sum(1, keepdim=True))
        rim = _turned(x, centre, _unit(across), torch.full_like(angle, self.widest))
        inside = torch.cat([RADIUS * _unit(out), x[:, -1:]], 1)
        return torch.where(angle >= self.widest, rim, inside)

    def around(self, x: Tensor) -> Projection:
        return lambda at: self.project(at, x)


def ball_of(config: AttackConfig, *, bounded: bool = True) -> Ball:
    """The ball of an attack; unless it is a cap, with pixels from 0 to 1 where points are `bounded`."""
    if config.norm is Norm.cap:
        return Cap(config.eps)
    shape = Linf if config.norm is Norm.linf else L2
    return shape(config.eps) if bounded else shape(config.eps, None)


def normals(draw: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones from [0, 1), one of each."""
    edge = torch.finfo(draw.dtype).eps
    return math.sqrt(2) * torch.erfinv((2 * draw - 1).clamp(edge - 1, 1 - edge))


def _isotropic(normal: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Direction of normal numbers, and the share of the radius that makes a point uniform in a ball of so many
    dimensions.

    Length and direction of normal numbers are independent, and the distribution function of the squared length gives a
    uniform number v; v^(1 / dimensions) is the share.
    """
    uniform = torch.special.gammainc(normal.new_tensor(dimensions / 2), _length(normal).square() / 2)
    return _unit(normal), uniform ** (1 / dimensions)


def _boxed(at: Tensor, box: Box | None) -> Tensor:
    return at if box is None else at.clamp(*box)


def _tiny(at: Tensor) -> float:
    return torch.finfo(at.dtype).tiny


def _length(at: Tensor) -> Tensor:
    """Euclidean length of every item, [items, 1, ...]."""
    return at.flatten(1).norm(dim=1).view(-1, *[1] * (at.dim() - 1))


def _unit(at: Tensor) -> Tensor:
    """Every item at length 1, or 0 where it is 0; divided by its largest entry first, or small squares would be 0."""
    largest = at.flatten(1).abs().amax(1).view(-1, *[1] * (at.dim() - 1))
    scaled = at / largest.clamp_min(_tiny(at))
    return scaled / _length(scaled).clamp_min(_tiny(at))


def _tangent(vector: Tensor, at: Tensor) -> Tensor:
    """What of [items, d] is orthogonal to unit vectors `at`."""
    return vector - (vector * at).sum(1, keepdim=True) * at


def _turned(x: Tensor, head: Tensor, direction: Tensor, angle: Tensor) -> Tensor:
    """x of X, whose first coordinates are RADIUS * head, turned by `angle` towards the tangent `direction`."""
    turned = x[:, :-1] * angle.cos() + RADIUS * angle.sin() * direction
    return torch.cat([turned, x[:, -1:]], 1)
