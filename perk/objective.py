"""The paper's losses (section 3), and what selects a model.

    inner   mean over the tokens s_t of all segments of the context K of  w_t * -log p(s_t | s_<t)
    outer   mean over the tokens y_t of the target of  -log p(y_t | q, y_<t)  under the weights that hold K

q is the question, y what is to be said: the answer, or with method.target=support the supporting facts before it. With
several questions about one K the outer loss is their mean. The weights w_t come from a small network that the outer
loop trains; equation 5, the gradient of the outer loss through the last inner steps, is `inner.unroll=tgu`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.lora import over_tasks
from common.engine.weights import Weights, call
from common.language.batch import Rows
from common.language.objective import Losses, mean_loss
from common.language.token_losses import TokenLosses
from common.run.results import Selection

SELECTION = Selection("accuracy")
"""By the task's metric, on dev."""
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


def context_loss(losses: Losses, weights: Weights, segments: Rows) -> Tensor:
    """The inner loss; [] or [problems]. `losses` weigh tokens, the rows' weights (`perk.templates.token_shares`) make
    it the mean over all tokens of a context.
    """
    return mean_loss(losses, weights, segments)


def answer_loss(losses: Losses, fast: Weights, questions: Rows) -> Tensor:
    """The outer loss of questions with their targets, no token weighted; [] or [problems]."""
    return mean_loss(losses, fast, questions)
