"""What an adversary maximises: functions of logits, one value an item."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError
from fal.adversary.config import Loss

Gain = Callable[[Tensor], Tensor]
"""Points [items, ...] -> what the adversary maximises, [items]; item i depends on point i alone, or on its stack."""
LogitLoss = Callable[..., Tensor]
"""(logits [..., classes], labels [...], and what else it is by) -> values [...]."""


def cross_entropy_gain(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each item, in nats."""
    values = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return values.view(labels.shape)


def margin_gain(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the label's: above 0 where the item is misclassified."""
    own = logits.gather(-1, labels[..., None])[..., 0]
    return logits.scatter(-1, labels[..., None], -torch.inf).amax(-1) - own


def dlr_gain(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin over the distance of the largest to the third largest logit (arXiv 2003.01690, equation 6).

    Raises:
        UserError: fewer than three classes.
    """
    _check_classes(logits, 3, Loss.dlr)
    top = logits.topk(3).values
    return margin_gain(logits, labels) / (top[..., 0] - top[..., 2] + 1e-12)


def targeted_dlr_gain(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Logit of `targets` minus the label's, over the distance of the largest to the mean of the third and fourth
    largest (arXiv 2003.01690, equation 7).

    Raises:
        UserError: fewer than four classes.
    """
    _check_classes(logits, 4, Loss.targeted_dlr)
    top = logits.topk(4).values
    own, aim = (logits.gather(-1, which[..., None])[..., 0] for which in (labels, targets))
    return (aim - own) / (top[..., 0] - (top[..., 2] + top[..., 3]) / 2 + 1e-12)


def kl_gain(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || prediction) of each item, in nats; `reference` are logits, too, those of the clean points."""
    return F.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), reduction="none", log_target=True).sum(-1)


LABEL_GAINS: dict[Loss, LogitLoss] = {
    Loss.ce: cross_entropy_gain,
    Loss.cw: margin_gain,
    Loss.dlr: dlr_gain,
    Loss.targeted_dlr: targeted_dlr_gain,
}


@dataclass(frozen=True)
class Differentiated:
    """A gain that brings its own gradient."""

    values: Gain
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Points -> gradient of the summed gain by them, and the gain of each; neither with a graph."""

    def __call__(self, points: Tensor) -> Tensor:
        return self.values(points)


@dataclass(frozen=True)
class Classifier:
    """The gain of a classifier, which knows whom it has fooled and can go on with some of its items."""

    logits: Callable[..., Tensor]
    """Points [items, ...] -> [items, classes], of each item by itself; of a stack it takes `whose`, too."""
    labels: Tensor
    loss: LogitLoss
    also: tuple[Tensor, ...] = ()
    """What else the loss is by, an entry an item."""
    whose: Tensor | None = None
    """Of a stack of clients, whose each item is, [items]."""

    def __call__(self, points: Tensor) -> Tensor:
        return self.judged(points)[0]

    def judged(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The gain, and who is misclassified, of one forward pass."""
        logits = self.logits(points) if self.whose is None else self.logits(points, self.whose)
        return self.loss(logits, self.labels, *self.also), logits.detach().argmax(-1) != self.labels

    def of(self, rows: Tensor) -> "Classifier":
        """Of these items alone."""
        whose = None if self.whose is None else self.whose[rows]
        return replace(self, labels=self.labels[rows], also=tuple(each[rows] for each in self.also), whose=whose)


def _check_classes(logits: Tensor, least: int, loss: Loss) -> None:
    if logits.shape[-1] < least:
        raise UserError(
            f"attack.loss={loss} with {logits.shape[-1]} classes: it compares the largest {least} logits; use "
            "attack.loss=cw"
        )
