"""Free adversarial training (Shafahi et al., arXiv 1904.12843): one backward pass for weights and points.

m times the same batch:   g_W, g_x = gradient of mean_j l(f_W(x_j + d_j), y_j)
                          d <- project(d + eps * steepest(g_x));   W <- W - eta_local * g_W
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.engine.derivatives import gradient
from common.engine.weights import Weights
from fal.adversary.balls import ball_of
from fal.methods import Batch, Local

POINTS = "points of the batch"
Taken = Callable[[Weights, Batch, Tensor], Tensor]
"""(weights, batch, attacked points) -> loss [*clients]."""


class Free:
    """The loss of one client's local steps in a round, or of a stack's, for `common.engine.inner.adapt`.

    What the points have moved by is kept from step to step, also to the next batch, and is 0 before the first one.
    """

    def __init__(self, taken: Taken, batch_of: Callable[[int], Batch], local: Local) -> None:
        """`batch_of`: step -> its items. `local`: whose attack says how the points climb."""
        self.taken, self.batch_of, self.length = taken, batch_of, local.attack.length
        self.ball, self.anywhere = (ball_of(local.attack, bounded=box) for box in (local.bounded, False))
        self.moved: Tensor | None = None

    def __call__(self, weights: Weights, step: int) -> Tensor:
        """At the points as they are."""
        batch = self.batch_of(step)
        return self.taken(weights, batch, self.points(batch))

    def points(self, batch: Batch) -> Tensor:
        """Those of the batch, moved as far as the ball lets them."""
        if self.moved is None:
            self.moved = torch.zeros_like(batch.x)
        clients = batch.y.dim() - 1
        x, moved = (each.flatten(0, clients) for each in (batch.x, self.moved))
        return self.ball.project(x + moved, x).view(batch.x.shape)

    def gradient(self, weights: Weights, step: int) -> tuple[list[Tensor], Tensor]:
        """By the weights, and the loss [*clients]; the points climb by one step."""
        batch = self.batch_of(step)
        at = {**weights, POINTS: self.points(batch)}

        def loss(both: Weights, _: None) -> Tensor:
            return self.taken({name: both[name] for name in weights}, batch, both[POINTS])

        found, value = gradient(loss, at, (None,))
        self.climb(found.pop(), batch.y.dim() - 1)
        return found, value

    def climb(self, ascent: Tensor, clients: int) -> None:
        """One step, along the gradient by the points."""
        assert self.moved is not None
        moved, steepest = (each.flatten(0, clients) for each in (self.moved, ascent))
        after = self.anywhere.step(moved, steepest, self.length)
        self.moved = self.anywhere.project(after, torch.zeros_like(moved)).view(self.moved.shape)
