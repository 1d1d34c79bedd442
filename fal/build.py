"""Configuration to objects: images, network, clients, federation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import UserError
from fal.byzantine import Byzantine
from fal.config import TrainConfig
from fal.data import load
from fal.federation import Federation, clients_of
from fal.images.images import Images
from fal.methods import Local
from fal.model import build as build_network
from fal.network import Network
from fal.partition import matrix, partition, shifted
from fal.sharing.config import Kind
from fal.states import fresh_states

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Of a run."""

    splits: dict[str, Images]
    federation: Federation
    counts: Tensor
    """Images of each client and class, [clients, classes]."""


def build(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Parts:
    """Everything that a run needs; a function of the configuration.

    Raises:
        UserError: the data are not there or damaged, cannot be shared out as asked, or do not fit the network.
    """
    splits = load(config.data)
    train = splits["train"]
    parts = partition(train.y, config.partition, config.seed, train.owners)
    counts = matrix(train.y, parts, train.classes)
    clients = clients_of(parts, train.y, train.classes, dtype, config.federation.batch)
    x = train.x.to(device, dtype)
    if config.partition.kind is Kind.feature_shift:
        x = x.clone()
        for client, indices in enumerate(parts):
            x[indices] = shifted(x[indices], config.partition, client)
    network = Network(
        build_network(config.model, *train.shape, train.classes, config.seed).to(device, dtype),
        compiled=config.federation.compile,
    )
    _check_norm(network, config.federation.batch or min(len(client.indices) for client in clients))
    states = fresh_states(network, config.optimiser, [client.number for client in clients], dtype, device)
    if outside := config.federation.extensions(config.optimiser):
        log.info("outside the theorem: %s", ", ".join(outside))
    y = train.y.to(device)
    byzantine = (
        Byzantine.of(config.byzantine, config.seed, len(clients), y, train.classes)
        if config.byzantine.clients
        else None
    )
    federation = Federation(
        Local(network, config.method, config.attack), (x, y),
        [replace(each, indices=each.indices.to(device), log_counts=each.log_counts.to(device)) for each in clients],
        config.federation, config.optimiser, config.aggregator, config.seed, *states, byzantine,
    )  # fmt: skip
    return Parts(splits, federation, counts)


def _check_norm(network: Network, batch: int) -> None:
    """See that batch norm has a batch.

    Raises:
        UserError: it would normalise single items, to zero.
    """
    normed = [name for name, layer in network.modes[True].named_modules() if isinstance(layer, _BatchNorm)]
    if batch == 1 and normed:
        raise UserError(
            f"federation.batch=1 with batch norm ({normed[0]}): a batch of one has no deviation; use a larger batch, "
            "or model.norm=group"
        )
