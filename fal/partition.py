"""Which client has which training images, how unlike the clients are, and what feature shift does to an image.

A partition is a function of the labels, the settings and (seed, kind); no global generator is touched.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from fal.images.shift import brightened, turned
from fal.sharing.config import Kind, PartitionConfig
from fal.sharing.ways import WAYS, Parts, generator

TRIES = 100
"""Draws until every client has its minimum."""
REDRAWN = (Kind.dirichlet, Kind.k_labels)
"""Kinds whose sizes are left to chance."""
WHOLE = (Kind.iid, Kind.feature_shift, Kind.dirichlet, Kind.skew)
"""Kinds that leave no image out."""
GOLDEN = 0.6180339887498949
"""Multiples of it lie evenly in [0, 1), neighbours far apart."""


def partition(y: Tensor, config: PartitionConfig, seed: int, owners: Tensor | None = None) -> list[Tensor]:
    """Client -> its places in the training split, ascending, disjoint.

    Args:
        y: labels [items].
        config: the settings.
        seed: it and the kind decide the draw.
        owners: who each image is from [items], for kind=natural.

    Raises:
        UserError: a client cannot get its minimum, there are more clients than images, more labels a client than
            classes, or nobody knows whom images are from.
    """
    return _tensors(_shared_out(y, config, seed, owners)[: config.clients])


def validation_clients(y: Tensor, config: PartitionConfig, seed: int, owners: Tensor | None = None) -> list[Tensor]:
    """The same of the clients that never train; raises as `partition`."""
    return _tensors(_shared_out(y, config, seed, owners)[config.clients :])


def matrix(y: Tensor, parts: Sequence[Tensor], classes: int) -> Tensor:
    """Images of each client and class [clients, classes], int64."""
    return torch.stack([torch.bincount(y[part], minlength=classes) for part in parts])


def heterogeneity(counts: Tensor) -> Tensor:
    """Earth mover's distance of each client's labels to those of all clients together [clients], float64, 0 to 1.

    Every class is at distance 1 of every other, so it is half the sum of absolute differences of the shares: the part
    of a client's images that would need another label. (Zhao et al. 2018 give the sum itself.)
    """
    shares = counts.double() / counts.sum(1, keepdim=True)
    whole = counts.sum(0).double() / counts.sum()
    return (shares - whole).abs().sum(1) / 2


def shifted(x: Tensor, config: PartitionConfig, client: int) -> Tensor:
    """A client's images as it sees them, in [0, 1]; those of other kinds than feature_shift as they are.

    Angles rise with the clients' numbers; brightness goes round them in another order, so that the two are no measure
    of each other. Further clients (`validation`) lie between those that train.
    """
    if config.kind is not Kind.feature_shift:
        return x
    if x.ndim != 4:
        raise UserError("partition.kind=feature_shift: vectors cannot be turned; use a source of images")
    total = config.clients + config.validation
    at = (client + 0.5) / total
    angle, factor = config.rotation * (2 * at - 1), 1 + config.intensity * (2 * ((at * GOLDEN * total) % 1) - 1)
    return brightened(turned(x, angle), factor)


def seen(x: Tensor, parts: Sequence[Tensor], config: PartitionConfig) -> Tensor:
    """Images as the clients who have them see them, the clients of `parts` in the order of their numbers."""
    if config.kind is not Kind.feature_shift:
        return x
    x = x.clone()
    for client, places in enumerate(parts):
        x[places] = shifted(x[places], config, client)
    return x


def _shared_out(y: Tensor, config: PartitionConfig, seed: int, owners: Tensor | None) -> Parts:
    kind, total, least = config.kind, config.clients + config.validation, config.least
    if total * least > len(y):
        raise UserError(
            f"partition.clients={config.clients}, partition.validation={config.validation}: {len(y)} images are too "
            f"few for {total} clients of {least} or more; use fewer clients or more images (data.train)"
        )
    if kind is Kind.natural and owners is None:
        raise UserError(
            "partition.kind=natural: nobody knows whom these images are from; set data.columns.client (or data.writers "
            "of generated shapes), or use another partition"
        )
    read = (owners if kind is Kind.natural and owners is not None else y).cpu().numpy().astype(np.int64)
    best, poorest = -1, 0
    for attempt in range(TRIES if kind in REDRAWN else 1):
        parts = WAYS[kind](read, config, generator(seed, kind, attempt), total)
        sizes = [len(part) for part in parts]
        if min(sizes) >= least:
            return _exact(parts, len(y), config, seed)
        if min(sizes) > best:
            best, poorest = min(sizes), sizes.index(min(sizes))
    times = f"{TRIES} draws gave" if kind in REDRAWN else "it gives"
    easier = {Kind.dirichlet: "a larger partition.beta", Kind.k_labels: "a larger partition.labels_per_client"}
    key = "size" if config.size and config.size >= config.minimum else "minimum"
    raise UserError(
        f"partition.{key}={least} with partition.kind={kind}: {times} the smallest client (number {poorest}) at "
        f"best {best} images; use partition.{key}={max(1, best)} or less, fewer partition.clients, or "
        f"{easier.get(kind, 'more images (data.train)')}"
    )


def _exact(parts: Parts, items: int, config: PartitionConfig, seed: int) -> Parts:
    """Of every client `size` images, if that is set; ascending, none twice, and none left out where all are shared."""
    together = np.concatenate(parts)
    if len(np.unique(together)) != len(together) or (config.kind in WHOLE and len(together) != items):
        raise ValueError(f"{config.kind}: an image is with two clients, or with none")
    if config.size is not None:
        draws = generator(seed, config.kind, "size")
        parts = [draws.permutation(part)[: config.size] for part in parts]
    return [np.sort(part) for part in parts]


def _tensors(parts: Parts) -> list[Tensor]:
    return [torch.from_numpy(part.astype(np.int64)) for part in parts]
