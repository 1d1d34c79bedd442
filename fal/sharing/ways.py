"""The ways of sharing images out: labels and a generator in, each client's places out.

Every way has the signature of `Way`; none looks at the images.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from fal.sharing.config import Kind, PartitionConfig

Labels = NDArray[np.int64]
Parts = list[Labels]
"""Client -> places in the training split."""
Way = Callable[[Labels, PartitionConfig, np.random.Generator, int], Parts]


def _iid(labels: Labels, config: PartitionConfig, draws: np.random.Generator, total: int) -> Parts:
    return np.array_split(draws.permutation(len(labels)), total)


def _dirichlet(labels: Labels, config: PartitionConfig, draws: np.random.Generator, total: int) -> Parts:
    parts: list[Parts] = []
    for label in range(labels.max() + 1):
        places = draws.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(draws.dirichlet(np.full(total, config.beta)))[:-1]
        parts.append(np.split(places, (ends * len(places)).round().astype(np.int64)))
    return [np.concatenate([part[client] for part in parts]) for client in range(total)]


def _k_labels(labels: Labels, config: PartitionConfig, draws: np.random.Generator, total: int) -> Parts:
    classes, wanted = int(labels.max()) + 1, config.labels_per_client
    if wanted > classes:
        raise UserError(
            f"partition.labels_per_client={wanted} of {classes} classes: use {classes} or less, or partition=iid"
        )
    deck: list[int] = []
    holders: list[list[int]] = [[] for _ in range(classes)]
    for client in range(total):
        mine: list[int] = []
        while len(mine) < wanted:
            if all(label in mine for label in deck):
                deck += draws.permutation(classes).tolist()
            label = next(label for label in deck if label not in mine)
            deck.remove(label)
            mine.append(label)
            holders[label].append(client)
    parts: list[Parts] = [[] for _ in range(total)]
    for label, clients in enumerate(holders):
        places = draws.permutation(np.flatnonzero(labels == label))
        for client, part in zip(clients, np.array_split(places, max(1, len(clients))), strict=False):
            parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def _skew(labels: Labels, config: PartitionConfig, draws: np.random.Generator, total: int) -> Parts:
    classes, drawn = int(labels.max()) + 1, draws.permutation(len(labels))
    if classes % total == 0:
        blocks = [drawn[labels[drawn] // (classes // total) == block] for block in range(total)]
    else:  # as many clients as there may be: the images in the order of their labels, cut into equal blocks
        blocks = [draws.permutation(b) for b in np.array_split(drawn[labels[drawn].argsort(kind="stable")], total)]
    parts: list[Parts] = [[] for _ in range(total)]
    for own, block in enumerate(blocks):
        others = draws.permutation([client for client in range(total) if client != own])  # who gets what is left over
        given = round((1 - config.share) * len(block)) if total > 1 else 0
        parts[own].append(block[given:])
        for other, part in zip(others, np.array_split(block[:given], max(1, len(others))), strict=False):
            parts[other].append(part)
    return [np.concatenate(part) for part in parts]


def _natural(owners: Labels, config: PartitionConfig, draws: np.random.Generator, total: int) -> Parts:
    """Of whom images are from, in place of their labels."""
    people, sizes = np.unique(owners, return_counts=True)
    fit = people[sizes >= config.least]
    if len(fit) < total:
        raise UserError(
            f"partition.clients={config.clients}, partition.validation={config.validation}: {len(fit)} of "
            f"{len(people)} persons have {config.least} images or more (partition.minimum); use fewer clients"
        )
    return [np.flatnonzero(owners == person) for person in draws.permutation(fit)[:total]]


WAYS: dict[Kind, Way] = {
    Kind.iid: _iid,
    Kind.feature_shift: _iid,
    Kind.dirichlet: _dirichlet,
    Kind.k_labels: _k_labels,
    Kind.skew: _skew,
    Kind.natural: _natural,
}


def generator(seed: int, kind: Kind, what: int | str) -> np.random.Generator:
    """Fresh for every kind and purpose."""
    digest = hashlib.sha256(f"{seed}/{kind}/{what}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
