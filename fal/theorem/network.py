"""The network of the theorem, the pseudo-network beside it, and its losses (fact sheet, sections 1.2, 1.4 and 1.6).

Everything carries two leading axes, [runs, clients]: runs have networks of their own (one a seed), clients of a run
have weights of their own. An axis of size 1 broadcasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fal.certify import Arcs, exact_arc


@dataclass(frozen=True)
class Network:
    """f_W(x) = sum_r a_r relu(<w_r, x> + b_r) with W alone trained; one row of W a neuron.

    a_r is -m^(-1/3) or m^(-1/3), every entry of W(0) and b is N(0, 1/m).
    """

    outer: Tensor
    """a [runs, 1, m]."""
    bias: Tensor
    """b [runs, 1, m]."""
    start: Tensor
    """W(0) [runs, 1, m, d]."""

    @classmethod
    def draw(cls, width: int, dim: int, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> "Network":
        """One network a seed; the draw is of float64, so that the precision changes its rounding alone."""
        drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
        signs = [torch.randint(2, (width,), generator=g) * 2 - 1 for g in drawn]
        normal = [torch.randn(width, dim + 1, generator=g, dtype=torch.float64) * width**-0.5 for g in drawn]
        outer = torch.stack(signs).to(dtype) * width ** (-1 / 3)
        start = torch.stack(normal).to(dtype)
        return cls(outer[:, None], start[:, None, :, dim], start[:, None, :, :dim].contiguous())

    @property
    def width(self) -> int:
        """m."""
        return self.outer.shape[-1]

    def predict(self, weights: Tensor, x: Tensor) -> Tensor:
        """f_W(x) [runs, clients, points] of weights [runs, clients, m, d] and points [runs, clients, points, d]."""
        return self._summed(torch.relu(self._before(weights, x)))

    def pseudo(self, weights: Tensor, x: Tensor) -> Tensor:
        """g_W(x) = sum_r a_r <w_r - w_r(0), x> 1[<w_r(0), x> + b_r >= 0], shapes as in `predict`."""
        return self._summed(x @ (weights - self.start).mT * self.active(self.start, x))

    def active(self, weights: Tensor, x: Tensor) -> Tensor:
        """Which ReLUs are on: bool [runs, clients, points, m]."""
        return self._before(weights, x) >= 0

    def worst(self, weights: Tensor, x: Tensor, y: Tensor, half: float) -> tuple[Tensor, Tensor]:
        """On the arc of `half` on either side of each x (d = 3): the point with the largest |prediction - y|
        [runs, clients, points, 3], of x's precision, and that [runs, clients, points].
        """
        return exact_arc(weights, self.outer, self.bias, x, y, half)

    def gradient(self, active: Tensor, slopes: Tensor, x: Tensor) -> Tensor:
        """d/dW of the mean over points of a loss with `slopes` l' [runs, clients, points] at the predictions:
        [runs, clients, m, d]. With the ReLUs of the start it is the pseudo-network's.
        """
        each = slopes[..., None] * active * self.outer[..., None, :] / slopes.shape[-1]
        return each.mT @ x

    def _before(self, weights: Tensor, x: Tensor) -> Tensor:
        return x @ weights.mT + self.bias[..., None, :]

    def _summed(self, hidden: Tensor) -> Tensor:
        return (hidden @ self.outer[..., None])[..., 0]


class Pseudo(Network):
    """The pseudo-network in the place of the network (section 1.6): linear in W, so the proof's online argument holds
    of it as it stands, at any width.
    """

    def predict(self, weights: Tensor, x: Tensor) -> Tensor:
        return self.pseudo(weights, x)

    def active(self, weights: Tensor, x: Tensor) -> Tensor:
        return super().active(self.start, x)

    def worst(self, weights: Tensor, x: Tensor, y: Tensor, half: float) -> tuple[Tensor, Tensor]:
        """As of the network. It jumps at kinks, so the value is a supremum and the point beside the kink; float32 may
        put it on the other side, at a cost of one neuron.
        """
        arcs = Arcs(self.start, self.bias, x, half)
        angle, value = arcs.largest(arcs.waves(weights - self.start, torch.zeros_like(self.bias)), self.outer, y)
        return arcs.at(angle).to(x.dtype), value


@dataclass(frozen=True)
class Loss:
    """A loss of the residual f(x) - y: convex, 1-Lipschitz, 0 at 0, and larger where the residual is larger in size.

    `bend` 0 is the absolute loss; above it the Huber loss, r^2 / (2 bend) up to |r| = bend and |r| - bend / 2 beyond.
    """

    bend: float = 0.0

    def value(self, residual: Tensor) -> Tensor:
        """The loss, of the residual's shape."""
        size = residual.abs()
        if not self.bend:
            return size
        return torch.where(size < self.bend, residual.square() / (2 * self.bend), size - self.bend / 2)

    def slope(self, residual: Tensor) -> Tensor:
        """Its derivative by the prediction, 0 at 0."""
        return (residual / self.bend).clamp(-1, 1) if self.bend else residual.sign()
