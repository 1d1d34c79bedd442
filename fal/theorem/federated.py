"""The algorithm of the theorem (section 1.5): full batches, K local steps, a server rate; over all runs and clients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.engine.inner import adapt
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights
from fal.theorem.adversary import Adversary
from fal.theorem.config import FederatedConfig, LocalRate, Refresh
from fal.theorem.network import Loss, Network
from fal.theorem.points import Points

QUICKEST = 2.0
"""Largest factor by which rule `measured` changes a run's local rate from one round to the next."""


@dataclass(frozen=True)
class Start:
    """Where the clients begin a round."""

    number: int
    """From 1."""
    weights: Tensor
    """U(t) [runs, m, d]."""
    attacked: Tensor
    """S~(t) [runs, clients, points, d]."""
    eta_local: Tensor
    """[runs]."""


@dataclass(frozen=True)
class Round:
    """What is known at the end of a round."""

    number: int
    """From 1."""
    before: Tensor
    """U(t) at its start [runs, m, d]."""
    after: Tensor
    """U(t + 1) [runs, m, d]."""
    attacked: Tensor
    """S~(t): the points as the adversary moved them at U(t) [runs, clients, points, d]."""
    drift: Tensor
    """m^(1/2) max_c ||W_c(t, K) - U(t)||_(2,inf) [runs]."""
    eta_local: Tensor
    """Of this round [runs]."""


class Rates:
    """eta_local and eta_global of every run; their product is e m^(-1/3) / K whatever the rule (section 2.1)."""

    def __init__(self, config: FederatedConfig, width: int, runs: int) -> None:
        self.config = config
        self.scale = width ** (-1 / 3) / config.local_steps
        local = 1 / config.local_steps if config.local_rate is LocalRate.paper else config.width_factor * self.scale
        self.local = torch.full((runs,), local, dtype=torch.float64)

    @property
    def server(self) -> Tensor:
        """eta_global [runs]."""
        return self.config.step * self.scale / self.local

    def measured(self, drift: Tensor) -> None:
        """Rule `measured` brings the drift to its target; the others stay where they are."""
        if self.config.local_rate is LocalRate.measured and self.config.local_steps > 1:
            factor = self.config.drift / drift.double().clamp(min=1e-12)
            self.local = self.local * factor.clamp(1 / QUICKEST, QUICKEST)


def federated(
    network: Network,
    points: Points,
    loss: Loss,
    adversary: Adversary,
    config: FederatedConfig,
    watch: Callable[[Round], None] = lambda _: None,
) -> Tensor:
    """Train from U(0); `watch` sees every round. Returns U(T) [runs, m, d].

    Runs are independent of each other; the mean over clients is unweighted, and all of them take part.
    """
    dtype, runs = network.start.dtype, len(network.start)
    points = Points(points.x.to(dtype), points.y.to(dtype))
    rates = Rates(config, network.width, runs)
    weights = network.start[:, 0]
    for number in range(1, config.rounds + 1):
        eta_local, eta_global = rates.local, rates.server
        attacked = adversary(
            weights[:, None], points.x[None], points.y[None], (number, 0)
        )  # all clients begin at the same weights
        start = Start(number, weights, attacked, eta_local.to(dtype))
        local = local_steps(network, points, loss, adversary, config, start)
        moved = local - weights[:, None]
        after = weights + eta_global.to(dtype)[:, None, None] * moved.mean(1)
        drift = network.width**0.5 * moved.norm(dim=-1).amax((1, 2))
        rates.measured(drift)
        watch(Round(number, weights, after, attacked, drift, eta_local))
        weights = after
    return weights


def local_steps(
    network: Network, points: Points, loss: Loss, adversary: Adversary, config: FederatedConfig, start: Start
) -> Tensor:
    """W_c(t, K) of every client [runs, clients, m, d].

    With `refresh=step` every step after the first attacks anew, at the client's own weights.
    """
    weights, lead = start.weights, (len(start.weights), len(points.y))

    def objective(at: Weights, step: int) -> Tensor:
        own, x = at["w"].unflatten(0, lead), start.attacked
        if step and config.refresh is Refresh.step:
            x = adversary(own.detach(), points.x[None], points.y[None], (start.number, step))
        losses = loss.value(network.predict(own, x) - points.y).mean(-1)
        return (start.eta_local[:, None] * losses).flatten()  # a run's own rate

    found = adapt(
        objective,
        {"w": weights[:, None].expand(*lead, *weights.shape[1:]).flatten(0, 1)},
        lambda step: [step],
        steps=config.local_steps,
        rule=SGD(),
        rates=1.0,
        unroll=Unroll.none,
    )
    return found.weights["w"].unflatten(0, lead)
