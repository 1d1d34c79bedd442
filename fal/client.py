"""What one client does in one round, as a pure function; a stack of clients does the same at once.

W <- U
K times:  x~ <- A(W, x)   (or A(U, x), method.refresh=round)
          W <- W - eta_local * grad_W mean_j l(f_W(x~_j), y_j)          sheet, 1.5
dU <- W - U
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.engine.derivatives import plain_gradient
from common.engine.inner import adapt
from common.engine.rules import SGD, Momentum, UpdateRule
from common.engine.settings import Unroll
from common.engine.weights import Weights, stack, stack_of, unstack
from fal.keys import Key
from fal.methods import Batch, Local
from fal.settings import Optimiser, OptimiserConfig, Refresh


@dataclass(frozen=True)
class Global:
    """What the server sends."""

    weights: Weights
    buffers: Weights = field(default_factory=dict)
    """Running statistics of batch norm."""
    variate: Weights = field(default_factory=dict)
    """SCAFFOLD's c; empty for others."""


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
    """SCAFFOLD's c_i, the client's state."""
    y: Tensor | None = None
    """Labels of the client's own making, in place of those of the data."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Works of one shape can be stacked."""
        return tuple(len(batch) for batch in self.batches)


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


Remote = Callable[[Global, Mapping[int, Work], int], Mapping[int, Update]]
"""Trains clients elsewhere, in the round of this number; fewer updates than works may come back."""

Pull = Callable[[Weights], Tensor]


def client_step(
    local: Local, optimiser: OptimiserConfig, images: tuple[Tensor, Tensor], start: Global, works: Sequence[Work]
) -> list[Update]:
    """The local steps of one client, or of several at once whose works have one shape; nothing given is written to.

    Args:
        local: the method's objective.
        optimiser: rate, momentum and corrections of the local steps.
        images: all points [all, ...] and labels [all] that `batches` point into.
        start: the global weights.
        works: one a client; a single one goes without the axis of a stack.
    """
    stacked, first = len(works) > 1, works[0]
    rate = optimiser.lr

    def lifted(weights: Weights) -> Weights:
        return stack(weights, len(works)) if stacked else weights

    own = [{name: b.clone() for name, b in start.buffers.items()} for _ in works]
    buffers = stack_of(own) if stacked else own[0]  # batch norm moves them in place
    variates = [work.variate for work in works]
    pull = _pull(optimiser, start, stack_of(variates) if stacked else variates[0], stacked)
    origin = lifted(start.weights)
    loss = _Loss(local, images, works, origin, buffers, pull)
    steps = len(first.batches)
    found = adapt(
        loss, origin, lambda step: [step], steps=steps, rule=_rule(optimiser), rates=rate, unroll=Unroll.none
    ).weights  # fmt: skip
    sizes, updates = first.shape, []
    deltas = {name: w.sub_(start.weights[name]) for name, w in found.items()}  # nobody else has them
    told_all = torch.stack(loss.sums).view(steps, len(works)).T.tolist()
    for place, work in enumerate(works):
        delta, moved = (unstack(deltas, place), unstack(buffers, place)) if stacked else (deltas, buffers)
        told = told_all[place]
        updates.append(
            Update(
                delta,
                moved,
                _variate(optimiser, start, work, delta, steps * rate),
                told[0] / sizes[0],
                told[-1] / sizes[-1],
                sum(told[-work.last_epoch :]),
                steps,
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
        buffers: Weights,
        pull: Pull | None,
    ) -> None:
        """`origin`: the global weights as the clients hold them; `buffers`: theirs, which batch norm moves in place."""
        self.local, self.images, self.works, self.pull = local, images, works, pull
        self.origin, self.buffers, self.sums = origin, buffers, list[Tensor]()
        self._attacked_of = _Memory()

    def __call__(self, weights: Weights, step: int) -> Tensor:
        """Of every client, after the attack."""
        batch, worst = self._batch(weights, step)
        items = self.local.loss({**weights, **self.buffers}, batch, worst)
        self.sums.append(items.detach().sum(-1))
        return items.mean(-1) + (self.pull(weights) if self.pull else 0.0)

    def gradient(self, weights: Weights, step: int) -> tuple[list[Tensor], Tensor]:
        """By the weights, and the loss, neither with a graph."""
        if self.buffers or self.pull:
            return plain_gradient(self, weights, step)
        batch, worst = self._batch(weights, step)
        gradients, items = self.local.differentiated(weights, batch, worst)
        self.sums.append(items.sum(-1))
        return gradients, items.mean(-1)

    def _batch(self, weights: Weights, step: int) -> tuple[Batch, Tensor]:
        """The items of a step, and their attacked points."""
        batch = _batch(self.works, self.images, step)
        every_step = self.local.method.refresh is Refresh.step
        source = weights if every_step else self.origin

        def attacked() -> Tensor:
            statistics = self.buffers
            if self.local.method.batch_statistics:  # which the attack must not move
                statistics = {name: b.clone() for name, b in statistics.items()}
            return self.local.attacked({**source, **statistics}, batch)

        return batch, attacked() if every_step else self._attacked_of(self.works[0].batches[step], attacked)


class _Memory:
    """What a batch gave, while the same tensor of indices comes again."""

    def __init__(self) -> None:
        self._of: Tensor | None = None
        self._found: Tensor | None = None

    def __call__(self, batch: Tensor, make: Callable[[], Tensor]) -> Tensor:
        if self._found is None or self._of is not batch:
            self._of, self._found = batch, make()
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


def _pull(optimiser: OptimiserConfig, start: Global, variates: Weights, stacked: bool) -> Pull | None:
    """What is added to the loss [*clients], so that its gradient is the optimiser's correction; None: nothing.

    FedProx: mu / 2 |W - U|^2 (arXiv 1812.06127). SCAFFOLD: <c - c_i, W>, of gradient c - c_i (arXiv 1910.06378).
    """

    def summed(parts: list[Tensor]) -> Tensor:
        return torch.stack([part.flatten(int(stacked)).sum(-1) for part in parts]).sum(0)

    if optimiser.name is Optimiser.fedprox:
        mu = optimiser.mu or 0.0
        return lambda weights: mu / 2 * summed([(w - start.weights[name]).square() for name, w in weights.items()])
    if optimiser.name is Optimiser.scaffold:
        correction = {name: c - variates[name] for name, c in start.variate.items()}
        return lambda weights: summed([w * correction[name] for name, w in weights.items()])
    return None


def _variate(optimiser: OptimiserConfig, start: Global, work: Work, delta: Weights, path: float) -> Weights:
    """SCAFFOLD's new c_i = c_i - c + (U - W) / (K eta_local), its option II."""
    if optimiser.name is not Optimiser.scaffold:
        return {}
    return {name: own - start.variate[name] - delta[name] / path for name, own in work.variate.items()}


def effective_steps(steps: int, optimiser: OptimiserConfig) -> float:
    """FedNova's |a|_1: how many plain steps those with momentum amount to (arXiv 2007.07481, section 4)."""
    rho = optimiser.momentum
    if not rho:
        return float(steps)
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
