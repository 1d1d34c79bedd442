"""Configuration to objects: images, network, clients, federation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.engine.weights import stack_of
from common.errors import UserError
from fal.alone import Alone
from fal.byzantine import Byzantine
from fal.config import TrainConfig
from fal.data import load
from fal.federation import Federation
from fal.images.images import Images
from fal.methods import Local
from fal.model import build as build_network
from fal.network import Network
from fal.partition import matrix, partition, seen, validation_clients
from fal.settings import Training
from fal.sharing.config import Kind, PartitionConfig
from fal.states import ServerState, fresh_states
from fal.workload import clients_of

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
    splits, parts = _shared(load(config.data), config.partition, config.seed)
    train = splits["train"]
    counts = matrix(train.y, parts, train.classes)
    training, all_clients = config.method.training, [torch.cat(parts).sort().values]
    own = all_clients if training is Training.centralised else parts
    clients = clients_of(own, train.y, train.classes, dtype, config.federation.batch, len(parts) // len(own))
    network = Network(
        build_network(config.model, *train.shape, train.classes, config.seed).to(device, dtype),
        compiled=config.federation.compile, captured=config.runtime.capture, dual=config.method.able is not None,
    )  # fmt: skip
    if network.dual and not network.batch_norm:
        raise UserError(
            f"method.able={config.method.able:g} with model.norm={config.model.norm}: it propagates statistics of "
            "batch norm; use model.norm=batch"
        )
    _check_norm(network, config.federation.batch or min(len(client.indices) for client in clients))
    server, states = fresh_states(network, config.optimiser, [client.number for client in clients], dtype, device)
    if training is Training.local:
        weights, buffers = (stack_of([each] * len(clients)) for each in server.state)
        server = ServerState(weights, buffers)
    if outside := config.federation.extensions(config.optimiser):
        log.info("outside the theorem: %s", ", ".join(outside))
    x, y = train.x.to(device, dtype), train.y.to(device)
    byzantine = (
        Byzantine.of(config.byzantine, config.seed, len(clients), y, train.classes)
        if config.byzantine.clients
        else None
    )
    federation = (Alone if training is Training.local else Federation)(
        Local(network, config.method, config.attack, train.bounded), (x, y),
        [replace(each, indices=each.indices.to(device), log_counts=each.log_counts.to(device)) for each in clients],
        config.federation, config.optimiser, config.aggregator, config.seed, server, states, byzantine,
    )  # fmt: skip
    return Parts(splits, federation, counts)


def _shared(splits: Mapping[str, Images], config: PartitionConfig, seed: int) -> tuple[dict[str, Images], list[Tensor]]:
    """The splits as clients see them, and the places in train of each client that trains."""
    train = splits["train"]
    parts, held = (each(train.y, config, seed, train.owners) for each in (partition, validation_clients))
    train = replace(train, x=seen(train.x, [*parts, *held], config))
    dev, test = (_viewed(splits[split], config, seed) for split in ("dev", "test"))
    if held:  # in the order of the train split: `evaluation.dev` takes the first ones
        places = torch.cat(held).sort().values
        dev = replace(train, x=train.x[places], y=train.y[places], owners=None)
    return {"train": train, "dev": dev, "test": test}, parts


def _viewed(images: Images, config: PartitionConfig, seed: int) -> Images:
    """A split that no client has, with feature shift as the training clients would see equal parts of it."""
    if config.kind is not Kind.feature_shift:
        return images
    shares = replace(config, validation=0, size=None, minimum=1)
    return replace(images, x=seen(images.x, partition(images.y, shares, seed), config))


def _check_norm(network: Network, batch: int) -> None:
    """See that batch norm has a batch.

    Raises:
        UserError: it would normalise single items, to zero.
    """
    if batch == 1 and network.batch_norm:
        raise UserError(
            f"federation.batch=1 with batch norm ({min(network.batch_norm)}): a batch of one has no deviation; use a "
            "larger batch, or model.norm=group"
        )
