"""Losses of rows: what the inner loop memorises, and what the outer loop answers."""

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.engine.lora import over_tasks
from common.engine.weights import Weights, call
from common.language.batch import Rows


class Losses(Protocol):
    """Next-token losses under given weights, such as `TokenLosses`."""

    def under(self, weights: Weights, ids: Tensor) -> Tensor:
        """[(tasks,) rows, length] -> [(tasks,) rows, length - 1]."""
        ...


def logits(model: nn.Module, weights: Weights, ids: Tensor, keep: int = 0) -> Tensor:
    """Next-token logits under `weights`, of the last `keep` places (0: of all).

    `ids` int64 [rows, length] -> [rows, keep, vocabulary]; with stacked weights [tasks, rows, length] ->
    [tasks, rows, keep, vocabulary], task t under slice t of the weights.
    """
    spares_head = keep > 0 and "logits_to_keep" in inspect.signature(model.forward).parameters
    more: dict[str, Any] = {"logits_to_keep": keep} if spares_head else {}

    def one_task(task_weights: Weights, task_ids: Tensor) -> Tensor:
        output: Tensor = call(model, task_weights, input_ids=task_ids, use_cache=False, **more).logits
        return output[:, -keep:]

    return over_tasks(model, one_task, weights, ids)


def mean_loss(losses: Losses, weights: Weights, rows: Rows) -> Tensor:
    """Mean negative log-likelihood of a row's scored tokens, then the weighted mean over rows; [] or [tasks].

    With sentences as rows this is the language-modelling loss of what is to be memorised (token mean inside a
    sentence, then their mean), with questions and their targets the outer cross-entropy.
    """
    scored = rows.scored[..., 1:]
    per_token = losses.under(weights, rows.ids) * scored
    per_row = per_token.sum(-1) / scored.sum(-1).clamp(min=1)
    return (per_row * rows.weight).sum(-1)


def known(model: nn.Module, weights: Weights, rows: Rows) -> tuple[Tensor, Tensor]:
    """How well `weights` know every row: mean negative log-likelihood of its scored tokens, and whether each of them is
    the most likely one after those before it, which is what greedy decoding from the given tokens would write.

    Both [(tasks,) rows].
    """
    scores = logits(model, weights, rows.ids)[..., :-1, :]
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(-1)
    targets, scored = rows.ids[..., 1:], rows.scored[..., 1:] > 0
    losses = -scores.gather(-1, targets[..., None]).squeeze(-1).where(scored, 0)
    right = (scores.argmax(-1) == targets) | ~scored
    return losses.sum(-1) / scored.sum(-1).clamp(min=1), right.all(-1)
