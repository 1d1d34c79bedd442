"""What the rebuilt unroll keeps of every inner step, and how a step comes back from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.engine.cuda import updates
from common.engine.rules import Buffers, UpdateRule
from common.engine.together import picked

RateOf = Callable[[int, int], float]
"""(index of the weight, step) -> learning rate."""

Recalled = tuple[list[Tensor], list[Tensor], list[Buffers], list[Tensor]]
"""Weights before a step, their gradients, and buffers and weights after it (weights only if they are projected)."""


@dataclass
class Moves:
    """How the steps were taken, to take them again."""

    rule: UpdateRule
    """`bound` once the first loss is there."""
    rate_of: RateOf
    count: int = 0
    """Steps that the rule had taken before the first of these."""
    project: Callable[[list[Tensor]], list[Tensor]] | None = None
    """What followed each of them; it needs the weights all at once."""

    @property
    def replayed(self) -> bool:
        """Whether what a step left is needed for its reverse."""
        return self.rule.buffers > 0 or self.project is not None

    def move(
        self, step: int, group: Sequence[int], weights: list[Tensor], gradients: list[Tensor], buffers: list[Buffers]
    ) -> None:
        """The rule's part of the step, in place."""
        rates = [self.rate_of(i, step) for i in group]
        update = updates(weights[0].device)
        update.advance(picked(self.rule, group), weights, gradients, rates, buffers, self.count + step + 1)


class Tape(Protocol):
    """Remembers steps in order and gives them back from the last to the first."""

    moves: Moves
    norms: list[Tensor]
    """Of the gradients before they were clipped; none without clipping."""

    def begin(self, weights: Sequence[Tensor], buffers: Sequence[Buffers]) -> None:
        """A step begins at these; they are written to once `record` has been called."""
        ...

    def record(self, gradients: Sequence[Tensor]) -> None:
        """The gradients of the step that began, clipped."""
        ...

    def recall(self, step: int, group: Sequence[int]) -> Recalled:
        """Of the weights with these indices at `step`: the weights before it, gradients, buffers and weights after it.

        All are free to write to. Steps are recalled from the last to the first, each weight once.
        """
        ...


class GradientTape:
    """One gradient a step, on the device. Weights and moments are played forward again from the start, bit for bit.

    That is one copy of the fast weights a step whatever the rule remembers, for K^2 / 2 updates of each tensor in all:
    cheap beside the K gradients. The room for all steps is taken before the first one, so that what stays does not lie
    scattered among a graph's temporaries, where it would keep their memory from being given back.
    """

    def __init__(self, start: Sequence[Tensor], buffers: Sequence[Buffers], steps: int, moves: Moves) -> None:
        self.start, self.buffers, self.moves = start, buffers, moves
        self.kept = [w.new_empty(steps, *w.shape) for w in start]
        self.taken = 0
        self.norms: list[Tensor] = []

    def begin(self, weights: Sequence[Tensor], buffers: Sequence[Buffers]) -> None:
        """Nothing to keep."""

    def record(self, gradients: Sequence[Tensor]) -> None:
        """Keep the gradients."""
        for kept, g in zip(self.kept, gradients, strict=True):
            kept[self.taken].copy_(g)
        self.taken += 1

    def recall(self, step: int, group: Sequence[int]) -> Recalled:
        """Play the weights forward to `step`, by the updates that the steps were taken with."""
        moves = self.moves
        weights = [self.start[i].detach().clone() for i in group]
        buffers = [[b.detach().clone() for b in self.buffers[i]] for i in group]
        moved = weights
        for at in range(step + 1 if moves.replayed else step):
            moved = weights if at < step else [w.clone() for w in weights]
            moves.move(at, group, moved, [self.kept[i][at] for i in group], buffers)
            if at < step and moves.project is not None:
                weights = moves.project(weights)
        return weights, [self.kept[i][step] for i in group], buffers, moved


class HostTape:
    """Gradients, weights and moments of every step in host memory; nothing stays on the device.

    On CUDA the copies go through pinned memory on a stream of their own: weights and moments beside the work on the
    step's gradient, the gradient beside the next step.
    """

    def __init__(self, moves: Moves, device: torch.device) -> None:
        self.moves, self.device = moves, device
        self.steps: list[list[list[Tensor]]] = []
        self.norms: list[Tensor] = []
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def begin(self, weights: Sequence[Tensor], buffers: Sequence[Buffers]) -> None:
        """Copy weights and moments."""
        self.steps.append([[self._away(x) for x in (w, *own)] for w, own in zip(weights, buffers, strict=True)])

    def record(self, gradients: Sequence[Tensor]) -> None:
        """Copy the gradients; what follows on the device waits until weights and moments have been read."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        for kept, g in zip(self.steps[-1], gradients, strict=True):
            kept.insert(1, self._away(g))

    def recall(self, step: int, group: Sequence[int]) -> Recalled:
        """Copy the weights back."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        weights, gradients, buffers = [], [], []
        for i in group:
            kept, self.steps[step][i] = self.steps[step][i], []
            w, g, *own = (x.to(self.device, non_blocking=True) for x in kept)
            weights.append(w)
            gradients.append(g)
            buffers.append(own)
        moved = weights
        if self.moves.replayed:
            moved = [w.clone() for w in weights]
            self.moves.move(step, group, moved, gradients, buffers)
        return weights, gradients, buffers, moved

    def _away(self, x: Tensor) -> Tensor:
        """A copy in host memory; on CUDA it is under way, and ready once the stream is."""
        if self.stream is None:
            return x.clone()
        away = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            away.copy_(x, non_blocking=True)
        x.record_stream(self.stream)
        return away
