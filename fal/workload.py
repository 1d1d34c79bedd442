"""A client's items, and which of them it takes in which local step of a round."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from common.errors import UserError
from fal.keys import Key
from fal.settings import FederationConfig


@dataclass(frozen=True)
class Client:
    """A client's data."""

    number: int
    indices: Tensor
    """Of its items, into the train split."""
    log_counts: Tensor
    """[classes]: of its labels; absent classes count as 1."""
    shares: int = 1
    """Clients whose items these are, where several are taken together."""


def clients_of(
    parts: Sequence[Tensor], y: Tensor, classes: int, dtype: torch.dtype, batch: int, shares: int = 1
) -> list[Client]:
    """The clients of a partition, or each of so many of its shares.

    Raises:
        UserError: one has no item, or fewer than a batch.
    """
    found = []
    for number, indices in enumerate(parts):
        if len(indices) < max(1, batch):
            raise UserError(
                f"client {number} has {len(indices)} of the {len(y)} items and federation.batch={batch}: every client "
                "needs a full batch; use a smaller federation.batch, fewer partition.clients, or a larger "
                "partition.minimum"
            )
        counts = torch.bincount(y[indices], minlength=classes).clamp(min=1)
        found.append(Client(number, indices, counts.to(dtype).log(), shares))
    return found


def batches_of(
    indices: Tensor, config: FederationConfig, key: Key, number: int, *, replays: int = 1, shares: int = 1
) -> tuple[list[Tensor], int]:
    """Indices of every local step, the same tensor again where a step has the same items, and the steps of a last pass.

    Without any where the client is slow and gets no step done.

    Args:
        indices: of the client's items.
        config: batch, passes or steps, and who is slow.
        key: of the client in this round.
        number: of the round.
        replays: how often each batch comes in a row; the number of steps stays what it is.
        shares: clients whose items these are: as many times `local_steps` are taken.
    """
    size = len(indices)
    batch = config.batch or size
    each = size // batch
    steps = config.steps(each, number, shares)
    if config.stragglers and float(key.uniform(0, "slow", (1,))) < config.stragglers:
        steps = int(config.deadline * steps)
    if batch == size:
        return [indices] * steps, min(steps, each)
    different = ceil(steps / replays)
    orders = [key.permutation(epoch, "order", size) for epoch in range(ceil(different / each))]
    parts = [part for order in orders for part in indices[order[: each * batch]].split(batch)][:different]
    return [part for part in parts for _ in range(replays)][:steps], min(steps, each)
