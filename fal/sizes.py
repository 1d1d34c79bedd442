"""What `python -m fal.model` prints: weights, the memory of a client's step, and how many clients a stack holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.derivatives import InnerLoss
from common.engine.footprint import footprint
from common.engine.plan import chunk_of
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights, buffers_of, call, select, stack, stack_of
from common.run.environment import pick_device
from fal import data
from fal.config import TrainConfig
from fal.images.config import DataConfig

SHAPES = {"fashion_mnist": (1, 28), "mnist": (1, 28), "cifar10": (3, 32)}
"""Channels and side of the sets whose files need not be read for them."""
Batch = tuple[Tensor, Tensor]


def report(network: nn.Module, config: TrainConfig, shape: tuple[int, int], items: int) -> str:
    """The text for the terminal.

    Args:
        network: in training mode afterwards.
        config: the settings.
        shape: channels and side of an image; of vectors the coordinates and 1.
        items: training images that clients share.

    Raises:
        UserError: the device is not there.
    """
    network.train()
    channels, side = shape
    clients = config.partition.clients
    batch = config.federation.batch or max(1, items // clients)
    x = torch.rand(batch, channels, side, side) if side > 1 else torch.rand(batch, channels)
    part = x, torch.zeros(batch, dtype=torch.long)
    device = pick_device(config.runtime.device)
    chunk = chunk_of(loss_of(network), select(network), part, device, tasks=clients, shared=False)
    weights = sum(parameter.numel() for parameter in network.parameters())
    numbers = sum(buffer.numel() for buffer in buffers_of(network).values())
    alone, together = (peak(network, part, tasks) for tasks in (1, chunk))
    lines = {
        "network": f"model.kind={config.model.kind}, norm {config.model.norm}, on {channels}x{side}x{side}",
        "weights": f"{weights:,} ({4 * weights / 1e6:.2f} MB), {numbers:,} buffers",
        "one client's step": f"{alone / 1e6:.1f} MB at its peak with a batch of {batch}, weights included",
        "a stack": f"{chunk} of {clients} clients at once, {together / 1e6:.1f} MB",
    }
    if chunk == 1 and clients > 1:
        lines["a stack"] += f": a client's step keeps the {device.type} busy, so they go one by one"
    width = max(map(len, lines))
    return "".join(f"{name:{width}}  {text}\n" for name, text in lines.items())


def shape_of(config: DataConfig) -> tuple[int, int, int]:
    """Channels, side and number of the training images; files are read only where nothing else tells."""
    config = data.available(config)
    if config.source in SHAPES and config.train is not None:
        return *SHAPES[config.source], config.train
    train = data.load(config)["train"]
    return *train.shape, len(train)


def loss_of(network: nn.Module, buffers: Mapping[str, Tensor] | None = None) -> InnerLoss:
    """Cross-entropy of one client's batch, or [clients] of a stack's with their buffers."""

    def one(weights: Weights, own: Mapping[str, Tensor], part: Batch) -> Tensor:
        return F.cross_entropy(call(network, {**weights, **own}, part[0]), part[1])

    if buffers is None:
        return lambda weights, part: one(weights, {}, part)
    return lambda weights, part: torch.func.vmap(one)(weights, buffers, part)


def peak(network: nn.Module, part: Batch, clients: int) -> int:
    """Bytes of a step of so many clients at once: weights, gradients and activations."""
    if clients == 1:
        loss, weights, given = loss_of(network), select(network), part
    else:
        loss = loss_of(network, stack_of([buffers_of(network)] * clients))
        weights = stack(select(network), clients)
        stacked = [each.expand(clients, *each.shape) for each in part]
        given = stacked[0], stacked[1]
    cost = footprint(loss, lambda at: loss(at, given), weights, [given], SGD())
    return cost.peak(Unroll.none, 1, 0)
