"""What clients train on and what selects and tests them, from a configuration."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fal import data
from fal.build import Parts, build
from fal.partition import partition, shifted, validation_clients

WORDS = [
    "scale=cpu", "data=shapes", "data.train=200", "data.validation=30", "data.test=40", "data.cache=null",
    "model=mlp_64", "federation.batch=4",
]  # fmt: skip


def built(config: Any) -> Parts:
    return build(config, torch.device("cpu"), torch.float32)


def test_test_images_are_seen_as_the_clients_would_see_them(composed: Callable[..., Any]) -> None:
    config = composed(*WORDS, "partition=feature_shift")
    found, plain = built(config), data.load(config.data)
    for split in ("dev", "test"):
        parts = partition(plain[split].y, config.partition, config.seed)
        for client, places in enumerate(parts):
            expected = shifted(plain[split].x[places], config.partition, client)
            assert torch.equal(found.splits[split].x[places], expected)
            assert not torch.equal(expected, plain[split].x[places])
        assert torch.equal(found.splits[split].y, plain[split].y)
    for client in found.federation.clients:
        own = shifted(plain["train"].x[client.indices], config.partition, client.number)
        assert torch.equal(found.federation.images[0][client.indices], own)


@pytest.mark.parametrize("kind", ["iid", "feature_shift"])
def test_validation_clients_select(composed: Callable[..., Any], kind: str) -> None:
    config = composed(*WORDS, f"partition={kind}", "partition.clients=4", "partition.validation=2")
    found, train = built(config), data.load(config.data)["train"]
    held = validation_clients(train.y, config.partition, config.seed)
    seen = torch.zeros_like(train.x)
    for client, places in enumerate(held, 4):
        seen[places] = shifted(train.x[places], config.partition, client)
    order = torch.cat(held).sort().values
    assert torch.equal(found.splits["dev"].x, seen[order]) and torch.equal(found.splits["dev"].y, train.y[order])
    trained = {place for client in found.federation.clients for place in client.indices.tolist()}
    assert len(trained) + len(order) == 200 and not trained & set(order.tolist())


def test_other_partitions_test_the_images_as_they_are(composed: Callable[..., Any]) -> None:
    config = composed(*WORDS, "partition=skew")
    found, plain = built(config), data.load(config.data)
    assert all(torch.equal(found.splits[split].x, plain[split].x) for split in plain)


def test_seeds_change_partition_and_start_together(composed: Callable[..., Any]) -> None:
    first, again, other = (built(composed(*WORDS, f"seed={seed}")) for seed in (0, 0, 1))

    def same(a: Parts, b: Parts) -> tuple[bool, bool, bool]:
        pairs = zip(a.federation.clients, b.federation.clients, strict=True)
        weights = [found.federation.server.weights for found in (a, b)]
        return (
            all(torch.equal(one.indices, two.indices) for one, two in pairs),
            all(torch.equal(w, weights[1][name]) for name, w in weights[0].items()),
            all(torch.equal(a.splits[split].x, b.splits[split].x) for split in a.splits),
        )

    assert same(first, again) == (True, True, True)
    assert same(first, other) == (False, False, True)
