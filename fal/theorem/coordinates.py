"""What a numerical check of the theorem can measure, in coordinates without width (fact sheet, section 2.1)."""

import torch
from torch import Tensor

from fal.theorem.adversary import Adversary
from fal.theorem.federated import Round
from fal.theorem.network import Loss, Network
from fal.theorem.points import Points
from fal.theorem.regret import Regret
from fal.theorem.static import kernel, limit_kernel


def coordinates(network: Network, points: Points, loss: Loss, weights: Tensor, attacked: Tensor) -> dict[str, Tensor]:
    """Of every run [runs]: losses, distances, coupling gaps, flips, the gradient gap and how far the surrogate kernel
    is from its limit of wide networks, at the weights [runs, m, d].

    Args:
        network: of all runs.
        points: of all clients, as one client's.
        loss: of a residual.
        weights: U(t).
        attacked: the points as the judge moved them at U(t) [runs, 1, n, d].
    """
    m, own, y = network.width, weights[:, None], points.y
    clean, worst = (network.predict(own, x) for x in (points.x[None], attacked))
    at_start, pseudo = network.predict(network.start, attacked), network.pseudo(own, attacked)
    now, before = network.active(own, attacked), network.active(network.start, attacked)
    moved = weights - network.start[:, 0]
    residual = worst - y
    slopes = loss.slope(residual)  # of the real prediction in both, as in the proof
    gap = network.gradient(now, slopes, attacked) - network.gradient(before, slopes, attacked)
    return {
        "clean": loss.value(clean - y).mean((1, 2)),
        "robust": loss.value(residual).mean((1, 2)),
        "worst_point": residual.abs().amax((1, 2)),
        "distance_max": m ** (2 / 3) * moved.norm(dim=-1).amax(-1),
        "distance_f": m ** (1 / 6) * moved.square().sum((1, 2)).sqrt(),
        "gap_linear": (worst - at_start - pseudo).abs().amax((1, 2)),
        "gap": (worst - pseudo).abs().amax((1, 2)),
        "flips": (now != before).double().mean((1, 2, 3)),
        "gradient_gap": gap.norm(dim=-1).sum((1, 2)) * m ** (-2 / 3),
        "kernel_error": (kernel(now, attacked) - limit_kernel(attacked)).abs().amax((1, 2, 3)),
    }


class Recorder:
    """Watches the rounds of `federated`: a record of every run each few rounds, and what the regret needs of each."""

    def __init__(
        self, network: Network, points: Points, loss: Loss, judge: Adversary, step: float, every: int,
        regret: Regret | None = None,
    ) -> None:  # fmt: skip
        """`points` of all clients; `step` is e."""
        dtype, everyone = network.start.dtype, points.all()
        self.network, self.loss, self.judge, self.step, self.every = network, loss, judge, step, every
        self.points = Points(everyone.x.to(dtype), everyone.y.to(dtype))
        self.regret = regret
        self.records: list[dict[str, Tensor]] = []
        self._best = torch.full((len(network.start),), torch.inf)
        unknown = torch.full_like(self._best, torch.nan)
        self._record(0, network.start[:, 0], unknown, unknown)

    def watch(self, at: Round) -> None:
        """Take note of a round."""
        if self.regret is not None:
            self.regret.add(at.before, at.after, at.attacked.flatten(1, 2), self.points.y[0])
        if at.number % self.every == 0:
            self._record(at.number, at.after, at.drift, at.eta_local)

    def _record(self, number: int, weights: Tensor, drift: Tensor, eta_local: Tensor) -> None:
        attacked = self.judge(weights[:, None], self.points.x[None], self.points.y[None], (number, -1))
        found = coordinates(self.network, self.points, self.loss, weights, attacked)
        self._best = torch.minimum(self._best, found["robust"])
        when = {"round": torch.full_like(self._best, number), "time": torch.full_like(self._best, self.step * number)}
        more = {"best": self._best, "drift": drift, "eta_local": eta_local}
        lost = self.regret.measured if self.regret is not None and number else {}
        self.records.append({**when, **found, **more, **lost})

    def curve(self, name: str) -> Tensor:
        """A coordinate of all records that have it [records, runs], in float64."""
        return torch.stack([record[name].double() for record in self.records if name in record])
