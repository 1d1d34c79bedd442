"""A training batch through a learner, as the papers' loops take it."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor


def losses_of(learner: Any, problems: Sequence[Any]) -> Iterator[Tensor]:
    """Outer losses whose sum is the batch's, one a group; each may be sent backward at once."""
    for group in learner.groups(problems):
        yield learner.answer_loss(learner.memorise(group, training=True), group)
