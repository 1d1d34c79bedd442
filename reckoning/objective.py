"""The paper's two losses: memorise the facts (inner), answer the question (outer)."""

import inspect

import torch
from torch import Tensor, nn

from common.twice.cross_entropy import TokenLosses
from common.weights import Weights, call
from reckoning.batch import Rows


def logits(model: nn.Module, weights: Weights, ids: Tensor, keep: int = 0) -> Tensor:
    """Next-token logits under `weights`, of the last `keep` places (0: of all).

    `ids` int64 [rows, length] -> [rows, keep, vocabulary]; with stacked weights [tasks, rows, length] ->
    [tasks, rows, keep, vocabulary], task t under slice t of the weights.
    """
    spares_head = keep > 0 and "logits_to_keep" in inspect.signature(model.forward).parameters
    more = {"logits_to_keep": keep} if spares_head else {}

    def one_task(task_weights: Weights, task_ids: Tensor) -> Tensor:
        output: Tensor = call(model, task_weights, input_ids=task_ids, use_cache=False, **more).logits
        return output[:, -keep:]

    if ids.dim() == 2:
        return one_task(weights, ids)
    return torch.func.vmap(one_task, randomness="different")(weights, ids)


def mean_loss(losses: TokenLosses, weights: Weights, rows: Rows) -> Tensor:
    """Mean negative log-likelihood of a row's scored tokens, then the weighted mean over rows; [] or [tasks].

    This is L_CLM of the sheet's section 1.2 when the rows are facts (token mean inside a fact, then fact mean), and
    the outer L_CE when they are questions with their targets.
    """
    scored = rows.scored[..., 1:]
    per_token = losses.under(weights, rows.ids) * scored
    per_row = per_token.sum(-1) / scored.sum(-1).clamp(min=1)
    return (per_row * rows.weight).sum(-1)
