"""What one client does in one round, as a pure function; a stack of clients does the same at once.

W <- U
K times:  x~ <- A(W, x)   (or A(U, x), method.refresh=round)
          W <- W - eta_local * grad_W mean_j l(f_W(x~_j), y_j)          sheet, 1.5
dU <- W - U
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from common.engine.derivatives import plain_gradient
from common.engine.inner import adapt
from common.engine.rules import SGD, Momentum, UpdateRule
from common.engine.settings import Unroll
from common.engine.weights import Weights, stack, stack_of, unstack
from fal.free import Free
from fal.keys import Key
from fal.methods import Batch, Local
from fal.settings import Objective, Optimiser, OptimiserConfig, Refresh


@dataclass(frozen=True)
class Global:
    """What the server sends."""

    weights: Weights
    buffers: Weights = field(default_factory=dict)
    """Running statistics of batch norm."""
    variate: Weights = field(default_factory=dict)
    """SCAFFOLD's c; empty for others."""
    each: bool = False
    """Is it a stack, of a model for each of several works?"""


@dataclass(frozen=True)
class Work:
    """What one client is to do in one round."""

    key: Key
    batches: Sequence[Tensor]
    """Of every local step the indices of its items; the same tensor again where a step has the same items."""
    log_counts: Tensor
    """[classes], as in `fal.methods.Batch`."""
    last_epoch: int
    """Number of the steps that are the last pass over the client's items."""
    variate: Weights = field(default_factory=dict)
    """SCAFFOLD's c_i or FedDyn's gradient, the client's state."""
    y: Tensor | None = None
    """Labels of the client's own making, in place of those of the data."""
    attacks: bool = True
    """Can the client afford attacks? Else it trains on clean points."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the batches."""
        return tuple(len(batch) for batch in self.batches)

    @property
    def kind(self) -> tuple[bool, tuple[int, ...]]:
        """Works of one kind can be stacked."""
        return self.attacks, self.shape


@dataclass(frozen=True)
class Update:
    """What a client sends back, and its new state."""

    delta: Weights
    buffers: Weights
    variate: Weights
    loss_first: float
    """Mean over the items of the first batch, before the first step."""
    loss_last: float
    adversarial_loss: float
    """Summed over the items of the last pass: what SFAT ranks by."""
    steps: int
    gradients: int
    """Gradients of a batch that were taken, by weights or by points; both in one backward pass are one."""


Remote = Callable[[Global, Mapping[int, Work], int], Mapping[int, Update]]
"""Trains clients elsewhere, in the round of this number; fewer updates than works may come back."""

Pull = Callable[[Weights], Tensor]


def client_step(
    local: Local, optimiser: OptimiserConfig, images: tuple[Tensor, Tensor], start: Global, works: Sequence[Work]
) -> list[Update]:
    """The local steps of one client, or of several at once whose works are of one kind; nothing given is written to.

    Args:
        local: the method's objective.
        optimiser: rate, momentum and corrections of the local steps.
        images: all points [all, ...] and labels [all] that `batches` point into.
        start: the weights that all begin with, or each with its own.
        works: one a client, of one kind; a single one goes without the axis of a stack.
    """
    stacked, first = len(works) > 1, works[0]
    local, rate = local if first.attacks else replace(local, attacks=False), optimiser.lr

    def lifted(weights: Weights) -> Weights:
        return stack(weights, len(works)) if stacked and not start.each else weights

    origin, given = lifted(start.weights), lifted(start.buffers)
    buffers = {name: b.clone() for name, b in given.items()}  # batch norm moves them in place
    variates = [work.variate for work in works]
    pull = _pull(optimiser, origin, start.variate, stack_of(variates) if stacked else variates[0], stacked)
    loss = _Loss(local, images, works, origin, given, buffers, pull)
    free = Free(loss.taken, loss.batch, local) if local.method.objective is Objective.free else None
    steps = len(first.batches)
    found = adapt(
        free or loss, origin, lambda step: [step], steps=steps, rule=_rule(optimiser), rates=rate, unroll=Unroll.none
    ).weights  # fmt: skip
    attacks = steps if local.method.refresh is Refresh.step else loss.attacked_of.made
    sizes, updates = first.shape, []
    deltas = {name: w.sub_(origin[name]) for name, w in found.items()}  # nobody else has them
    told_all = torch.stack(loss.sums).view(steps, len(works)).T.tolist()
    for place, work in enumerate(works):
        delta, moved = (unstack(deltas, place), unstack(buffers, place)) if stacked else (deltas, buffers)
        told = told_all[place]
        updates.append(
            Update(
                delta,
                moved,
                _variate(optimiser, start.variate, work, delta, steps * rate),
                told[0] / sizes[0],
                told[-1] / sizes[-1],
                sum(told[-work.last_epoch :]),
                steps,
                steps + attacks * local.attack_gradients,
            )  # fmt: skip
        )
    return updates


class _Loss:
    """What a stack of clients, or one, minimises in its local steps, with the gradient as a program where it can be."""

    def __init__(
        self,
        local: Local,
        images: tuple[Tensor, Tensor],
        works: Sequence[Work],
        origin: Weights,
        given: Weights,
        buffers: Weights,
        pull: Pull | None,
    ) -> None:
        """`origin`, `given`: weights and buffers that clients begin with; `buffers`: theirs, which batch norm moves."""
        self.local, self.images, self.works, self.pull = local, images, works, pull
        self.origin, self.given, self.buffers, self.sums = origin, given, buffers, list[Tensor]()
        self.attacked_of = _Memory()

    def __call__(self, weights: Weights, step: int) -> Tensor:
        """Of every client, after the attack."""
        batch = self.batch(step)
        return self.taken(weights, batch, self._worst(weights, batch, step))

    def taken(self, weights: Weights, batch: Batch, worst: Tensor) -> Tensor:
        """Of every client, at attacked points."""
        items = self.local.loss({**weights, **self.buffers}, batch, worst)
        self.sums.append(items.detach().sum(-1))
        return items.mean(-1) + (self.pull(weights) if self.pull else 0.0)

    def gradient(self, weights: Weights, step: int) -> tuple[list[Tensor], Tensor]:
        """By the weights, and the loss, neither with a graph."""
        if self.buffers or self.pull:
            return plain_gradient(self, weights, step)
        batch = self.batch(step)
        gradients, items = self.local.differentiated(weights, batch, self._worst(weights, batch, step))
        self.sums.append(items.sum(-1))
        return gradients, items.mean(-1)

    def batch(self, step: int) -> Batch:
        """The items of a step."""
        return replace(_batch(self.works, self.images, step), origin={**self.origin, **self.given})

    def _worst(self, weights: Weights, batch: Batch, step: int) -> Tensor:
        """Their attacked points."""
        every_step = self.local.method.refresh is Refresh.step
        source = weights if every_step else self.origin

        def attacked() -> Tensor:
            statistics = self.buffers
            if self.local.method.batch_statistics:  # which the attack must not move
                statistics = {name: b.clone() for name, b in statistics.items()}
            return self.local.attacked({**source, **statistics}, batch)

        return attacked() if every_step else self.attacked_of(self.works[0].batches[step], attacked)


class _Memory:
    """What a batch gave, while the same tensor of indices comes again."""

    def __init__(self) -> None:
        self.made = 0
        self._of: Tensor | None = None
        self._found: Tensor | None = None

    def __call__(self, batch: Tensor, make: Callable[[], Tensor]) -> Tensor:
        if self._found is None or self._of is not batch:
            self._of, self._found, self.made = batch, make(), self.made + 1
        return self._found


def _batch(works: Sequence[Work], images: tuple[Tensor, Tensor], step: int) -> Batch:
    """The items of a step, with the axis of a stack where there are several clients."""
    stacked, (x, y) = len(works) > 1, images
    index = torch.stack([work.batches[step] for work in works]) if stacked else works[0].batches[step]
    labels = [(y if work.y is None else work.y)[work.batches[step]] for work in works]
    log_counts = [work.log_counts for work in works]

    def draws(restart: int, shape: tuple[int, ...]) -> Tensor:
        drawn = [work.key.uniform(step, f"start {restart}", shape, x.dtype) for work in works]
        return torch.stack(drawn) if stacked else drawn[0]

    return Batch(x[index], torch.stack(labels) if stacked else labels[0],
                 torch.stack(log_counts) if stacked else log_counts[0], draws)  # fmt: skip


def _rule(optimiser: OptimiserConfig) -> UpdateRule:
    if optimiser.momentum:
        return Momentum(optimiser.momentum, optimiser.weight_decay)
    return SGD(optimiser.weight_decay)


def _pull(
    optimiser: OptimiserConfig, origin: Weights, variate: Weights, variates: Weights, stacked: bool
) -> Pull | None:
    """What is added to the loss [*clients], so that its gradient is the optimiser's correction; None: nothing.

    FedProx: mu / 2 |W - U|^2 (arXiv 1812.06127). SCAFFOLD: <c - c_i, W>, of gradient c - c_i (arXiv 1910.06378).
    FedDyn: mu / 2 |W - U|^2 - <g_i, W> (arXiv 2111.04263).
    """

    def summed(parts: list[Tensor]) -> Tensor:
        return torch.stack([part.flatten(int(stacked)).sum(-1) for part in parts]).sum(0)

    def near(weights: Weights) -> Tensor:
        return (optimiser.mu or 0.0) / 2 * summed([(w - origin[name]).square() for name, w in weights.items()])

    if optimiser.name is Optimiser.fedprox:
        return near
    if optimiser.name is Optimiser.feddyn:
        return lambda weights: near(weights) - summed([w * variates[name] for name, w in weights.items()])
    if optimiser.name is Optimiser.scaffold:
        correction = {name: c - variates[name] for name, c in variate.items()}
        return lambda weights: summed([w * correction[name] for name, w in weights.items()])
    return None


def _variate(optimiser: OptimiserConfig, variate: Weights, work: Work, delta: Weights, path: float) -> Weights:
    """The client's state after the round: SCAFFOLD's new c_i = c_i - c + (U - W) / (K eta_local), its option II;
    FedDyn's g_i - mu (W - U)."""
    if optimiser.name is Optimiser.scaffold:
        return {name: own - variate[name] - delta[name] / path for name, own in work.variate.items()}
    if optimiser.name is Optimiser.feddyn:
        return {name: own - (optimiser.mu or 0.0) * delta[name] for name, own in work.variate.items()}
    return {}


def effective_steps(steps: int, optimiser: OptimiserConfig) -> float:
    """FedNova's |a|_1: how many plain steps those with momentum amount to (arXiv 2007.07481, section 4)."""
    rho = optimiser.momentum
    if not rho:
        return float(steps)
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
