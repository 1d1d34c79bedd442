"""The paper's losses: what the inner loop memorises, token by token weighted (section 3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.lora import over_tasks
from common.engine.weights import Weights, call
from common.language.token_losses import TokenLosses

WIDTH = 128
"""Of the weighting network's hidden layer."""
SHARPNESS = 3.0
"""Beta of its softplus."""


class Weigher(nn.Module):
    """Weight of a token in the inner loss, from the last hidden state of the model that has just read it.

    The last layer starts at zero, so all weights start at ln 2 / 3.
    """

    def __init__(self, width: int) -> None:
        """`width`: of the model's hidden states."""
        super().__init__()
        self.hidden = nn.Linear(width, WIDTH)
        self.last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, states: Tensor) -> Tensor:
        """[..., width] -> [...]."""
        return F.softplus(self.last(F.gelu(self.hidden(states))), beta=SHARPNESS).squeeze(-1)


class WeightedLosses(nn.Module):
    """Next-token losses times their weights, under given fast weights; the weigher is no fast weight."""

    def __init__(self, losses: TokenLosses, weigher: Weigher) -> None:
        super().__init__()
        self.losses, self.weigher = losses, weigher

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` int64 [rows, length >= 2] -> float [rows, length - 1]."""
        losses, states = self.losses.with_states(ids)
        return losses * self.weigher(states[:, 1:].to(losses.dtype))

    def under(self, weights: Weights, ids: Tensor) -> Tensor:
        """The same with `weights`, named as in the network, in place of its own; stacks as in `TokenLosses.under`."""

        def one_task(task_weights: Weights, task_ids: Tensor) -> Tensor:
            found: Tensor = call(self, {f"losses.network.{name}": w for name, w in task_weights.items()}, task_ids)
            return found

        return over_tasks(self.losses.network, one_task, weights, ids)
