"""Losses of a classifier, one value an item, and what selects a model.

    robust loss of client c   (1/J) sum_j l(f_W(A(W, x_cj, y_cj)), y_cj)                          sheet, 1.4
    calibrated logits         s f_W(x) + log n_c, n_c the client's counts of the classes          CalFAT
    TRADES                    CE(f(x), y) + beta KL(f(x) || f(x~))
    MART                      BCE(f(x~), y) + beta KL(f(x) || f(x~)) (1 - p_y(x))
    DBFAT                     w CE(f(x~), y) + beta KL(f(x) || f(x~)) + gamma KL(f_U(x) || f(x~)), U the global weights

Logits have the shape [*clients, items, classes] and labels [*clients, items], with or without the axis of a stack.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.run.results import Selection

SELECTION = Selection("pgd")
"""Accuracy under PGD, on dev."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Of every item, [*clients, items]."""
    return F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def calibrated(logits: Tensor, scale: float, log_counts: Tensor) -> Tensor:
    """CalFAT's logits: scaled, then the client's log-prior [*clients, classes] at weight 1."""
    return scale * logits + log_counts.unsqueeze(-2)


def divergence(natural: Tensor, attacked: Tensor) -> Tensor:
    """KL(softmax of the natural logits || softmax of the attacked ones) of every item."""
    target, found = natural.log_softmax(-1), attacked.log_softmax(-1)
    return (target.exp() * (target - found)).sum(-1)


def trades(natural: Tensor, attacked: Tensor, y: Tensor, beta: float) -> Tensor:
    """Of every item: natural cross-entropy, and the divergence of the attacked prediction from the natural one."""
    return cross_entropy(natural, y) + beta * divergence(natural, attacked)


def mart(natural: Tensor, attacked: Tensor, y: Tensor, beta: float) -> Tensor:
    """Of every item: boosted cross-entropy at the attacked point, and the divergence where the natural one is wrong."""
    at = y.unsqueeze(-1)
    probabilities = attacked.softmax(-1)
    others = probabilities.scatter(-1, at, 0.0).amax(-1)
    boosted = cross_entropy(attacked, y) - torch.log1p(-others.clamp(max=1 - 1e-6))
    doubt = 1 - natural.softmax(-1).gather(-1, at).squeeze(-1)
    return boosted + beta * divergence(natural, attacked) * doubt


def dbfat(natural: Tensor, attacked: Tensor, whole: Tensor, y: Tensor, beta: float, gamma: float) -> Tensor:
    """Of every item: cross-entropy at the attacked point by its weight, and divergence of the prediction there from the
    client's own at the clean point and from the global model's, whose logits are `whole`."""
    regular = beta * divergence(natural, attacked) + gamma * divergence(whole, attacked)
    return boundary_weights(attacked, y) * cross_entropy(attacked, y) + regular


def boundary_weights(attacked: Tensor, y: Tensor) -> Tensor:
    """DBFAT's weights [*clients, items] of mean 1, without graph: exp(-m) over its mean in the batch.

    m in [-1, 1] is how much more probable the label is than the likeliest other class at the attacked point, so that
    items near the decision boundary and beyond it count up to e^2 times as much as those far inside. The paper's own
    form was not reached.
    """
    at, probabilities = y.unsqueeze(-1), attacked.detach().softmax(-1)
    others = probabilities.scatter(-1, at, 0.0).amax(-1)
    weights = (others - probabilities.gather(-1, at).squeeze(-1)).exp()
    return weights / weights.mean(-1, keepdim=True)
