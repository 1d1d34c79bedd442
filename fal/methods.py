"""Local objectives: what a client minimises, one value an item, and how its points are attacked.

Every formula holds for one client and for a stack of clients, whose tensors have a leading axis more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from common.engine.derivatives import gradient
from common.engine.weights import Weights
from fal import objective
from fal.adversary.balls import ball_of
from fal.adversary.config import AttackConfig, Loss
from fal.adversary.gains import LABEL_GAINS, Classifier, Differentiated, Gain, kl_gain
from fal.attack import attack
from fal.network import Network
from fal.settings import MethodConfig, Objective

Draws = Callable[[int, tuple[int, ...]], Tensor]
"""(restart, shape of one client's points) -> uniform numbers, [*clients, *shape]."""


@dataclass(frozen=True)
class Batch:
    """Items of one local step, of one client or of a stack."""

    x: Tensor
    """[*clients, items, ...], images in [0, 1]."""
    y: Tensor
    """[*clients, items]."""
    log_counts: Tensor
    """Of the classes among the client's items, absent ones counted as 1: [*clients, classes]."""
    draws: Draws
    origin: Weights = field(default_factory=dict)
    """The global weights and buffers that the round began with."""

    @property
    def stacked(self) -> bool:
        """Is there an axis of clients?"""
        return self.y.dim() == 2


@dataclass(frozen=True)
class Local:
    """The objective of a method."""

    network: Network
    method: MethodConfig
    attack: AttackConfig
    bounded: bool = True
    """Are all numbers of the points in [0, 1], and stay there?"""
    attacks: bool = True
    """False: the objective of a client that cannot afford attacks, cross-entropy at clean points."""

    @property
    def attack_gradients(self) -> int:
        """Gradients by points alone that the attack on a batch takes."""
        plain = not self.attacks or self.method.objective in (Objective.clean, Objective.free)
        return 0 if plain or self.method.fraction == 0 else self.attack.steps * self.attack.restarts

    def logits(self, weights: Weights, x: Tensor, batch: Batch, *, attacked: bool = False) -> Tensor:
        """As the loss sees them, in training mode."""
        seen = self.network(weights, x, stacked=batch.stacked, attacked=attacked)
        return self._seen(seen, batch.log_counts)

    def _seen(self, logits: Tensor, log_counts: Tensor) -> Tensor:
        if self.method.scale is None:
            return logits
        return objective.calibrated(logits, self.method.scale, log_counts)

    def loss(self, weights: Weights, batch: Batch, attacked: Tensor) -> Tensor:
        """Of every item [*clients, items], given the attacked points of the batch."""
        kind, beta = self.method.objective, self.method.beta or 0.0
        if not self.attacks:
            return objective.cross_entropy(self.logits(weights, batch.x, batch), batch.y)
        worst = self.logits(weights, attacked, batch, attacked=True)
        if kind in (Objective.clean, Objective.adversarial, Objective.calibrated, Objective.free):
            return objective.cross_entropy(worst, batch.y)
        natural = self.logits(weights, batch.x, batch)
        if kind is Objective.trades:
            return objective.trades(natural, worst, batch.y, beta)
        if kind is Objective.mart:
            return objective.mart(natural, worst, batch.y, beta)
        if kind is Objective.dbfat:
            whole = self.network(batch.origin, batch.x, training=False, stacked=batch.stacked).detach()
            return objective.dbfat(natural, worst, whole, batch.y, beta, self.method.gamma or 0.0)
        share = self.method.adversarial_share or 0.0
        return share * objective.cross_entropy(worst, batch.y) + (1 - share) * objective.cross_entropy(natural, batch.y)

    def differentiated(self, weights: Weights, batch: Batch, attacked: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradient of the mean of `loss` over a client's items by its weights, and `loss`; neither with a graph.

        For a network without buffers, which batch norm would write to.
        """
        method, names, whole = self.method, list(weights), list(batch.origin)
        if method.objective is not Objective.dbfat:
            whole = []

        def found(x: Tensor, y: Tensor, log_counts: Tensor, worst: Tensor, *tensors: Tensor) -> tuple[Any, Tensor]:
            items, given = y, dict(zip(whole, tensors[len(names) :], strict=True))
            own = replace(batch, x=x, y=y, log_counts=log_counts, origin=given)

            def mean(weights: Weights, _: None) -> Tensor:
                nonlocal items
                items = self.loss(weights, own, worst)
                return items.mean(-1)

            gradients, _ = gradient(mean, dict(zip(names, tensors, strict=False)), (None,))
            return gradients, items.detach()

        settings = method.objective, method.scale, method.beta, method.gamma, method.adversarial_share, self.attacks
        origin = (batch.origin[name] for name in whole)
        tensors = batch.x, batch.y, batch.log_counts, attacked, *weights.values(), *origin
        return self.network.programs.of(("loss", *settings, *names, *whole), found, *tensors)(*tensors)

    def attacked(self, weights: Weights, batch: Batch) -> Tensor:
        """The points that the loss is taken at, of the shape of `batch.x`; no gradient passes through them.

        With a fraction below 1 the last items of the batch stay as they are.
        """
        fraction = 1.0 if self.method.fraction is None else self.method.fraction
        count = round(fraction * batch.y.shape[-1])
        if self.method.objective is Objective.clean or count == 0 or not self.attacks:
            return batch.x
        items, rest = batch.y.dim() - 1, batch.y.shape[-1] - count
        x, y = batch.x.narrow(items, 0, count), batch.y.narrow(items, 0, count)
        fixed = {name: w.detach() for name, w in weights.items()}
        worst = self._worst(fixed, x, y, batch)
        return torch.cat([worst, batch.x.narrow(items, count, rest)], items) if rest else worst

    def _worst(self, weights: Weights, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """The attack on points [*clients, items, ...], whose clients are folded into the items."""
        names, shape, clients = list(weights), x.shape, y.dim() - 1
        divergence, stacked, training = self.attack.loss is Loss.kl, batch.stacked, self.method.batch_statistics

        def logits(points: Tensor, log_counts: Tensor, *tensors: Tensor) -> Tensor:
            own = dict(zip(names, tensors, strict=True))
            seen = self.network(own, points.view(shape), training=training, stacked=stacked, attacked=True)
            return self._seen(seen, log_counts).flatten(0, clients)

        def gain(points: Tensor, target: Tensor, *by: Tensor) -> Tensor:
            return (kl_gain if divergence else LABEL_GAINS[self.attack.loss])(logits(points, *by), target)

        def climbed(points: Tensor, *by: Tensor) -> tuple[Tensor, Tensor]:
            (found,), value = gradient(lambda at, _: gain(at["x"], *by), {"x": points}, (None,))
            return found, value

        def draws(restart: int) -> Tensor:
            return batch.draws(restart, tuple(shape[clients:])).flatten(0, clients).to(x)

        folded, by = x.flatten(0, clients), (batch.log_counts, *weights.values())
        with torch.no_grad():
            target = logits(folded, *by) if divergence else y.flatten()
        what = (self.attack.loss, self.method.scale, training, shape, *names)

        def plain(points: Tensor) -> Tensor:
            return gain(points, target, *by)

        own: Gain = plain
        if self.method.early_exit:
            own = self._leaving(weights, y, batch, (target,) if divergence else ())
        elif not (training and self.network.buffers):  # which batch norm would write to
            program = self.network.programs.of(what, climbed, folded, target, *by)
            own = Differentiated(plain, lambda points: program(points, target, *by))
        ball, leaves = ball_of(self.attack, bounded=self.bounded), self.method.early_exit
        return attack(own, folded, ball, self.attack, draws, early_exit=leaves).view(shape)

    def _leaving(self, weights: Weights, y: Tensor, batch: Batch, reference: tuple[Tensor, ...]) -> Classifier:
        """What an attack climbs by whose items leave, y [*clients, items]; of a stack, some sooner than others.

        Shapes change on the way, so that its gradient is not traced into a program.
        """

        def logits(points: Tensor, *whose: Tensor) -> Tensor:
            if not whose:
                return self._seen(self.network(weights, points, training=False, attacked=True), batch.log_counts)
            spread, places = spread_out(points, whose[0], len(y))
            seen = self.network(weights, spread, training=False, stacked=True, attacked=True)
            return self._seen(seen, batch.log_counts)[places]

        def loss(logits: Tensor, labels: Tensor, *reference: Tensor) -> Tensor:
            return kl_gain(logits, *reference) if reference else LABEL_GAINS[self.attack.loss](logits, labels)

        whose = torch.arange(len(y), device=y.device).repeat_interleave(y.shape[-1]) if batch.stacked else None
        return Classifier(logits, y.flatten(), loss, reference, whose)


def spread_out(points: Tensor, whose: Tensor, clients: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Items [items, ...] in a row for each client, [clients, most items, ...], filled up with 0; and where they stand.

    Args:
        points: the items.
        whose: client of each, [items], ascending.
        clients: how many there are; some may have no item.
    """
    counts = torch.bincount(whose, minlength=clients)
    places = whose, torch.arange(len(whose), device=whose.device) - (counts.cumsum(0) - counts)[whose]
    empty = points.new_zeros(clients, int(counts.max()), *points.shape[1:])
    return empty.index_put(places, points), places
