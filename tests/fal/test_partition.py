"""Partitions: disjoint, of exact sizes, functions of (seed, kind), and what cannot be shared out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from fal.partition import (
    TRIES,
    heterogeneity,
    matrix,
    partition,
    shifted,
    validation_clients,
)  # fmt: skip
from fal.sharing.config import Kind, PartitionConfig
from fal.sharing.ways import WAYS

Y = torch.arange(1000) % 10
OWNERS = (torch.arange(1000) * 7) % 12
LABELS_ONLY = [kind for kind in Kind if kind is not Kind.natural]


def parts_of(config: PartitionConfig, seed: int = 0, y: torch.Tensor = Y) -> list[torch.Tensor]:
    return partition(y, config, seed, OWNERS)


@pytest.mark.parametrize("kind", Kind)
def test_no_image_is_with_two_clients_and_none_is_lost(kind: Kind) -> None:
    parts = parts_of(PartitionConfig(kind=kind, clients=5))
    together = torch.cat(parts)
    assert len(parts) == 5 and len(together.unique()) == len(together) and all(len(part) for part in parts)
    assert len(together) == (
        1000 if kind is not Kind.natural else sum(int((OWNERS == OWNERS[p[0]]).sum()) for p in parts)
    )
    assert all(torch.equal(part, part.sort().values) for part in parts)


@pytest.mark.parametrize("kind", Kind)
def test_a_partition_is_a_function_of_seed_and_kind_alone(kind: Kind) -> None:
    config = PartitionConfig(kind=kind, clients=5)
    first = parts_of(config)
    np.random.seed(3)
    torch.manual_seed(3)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index, union-attr]
    second, other = parts_of(config), parts_of(config, seed=1)
    assert (np.random.get_state()[1] == before).all() and torch.equal(torch.get_rng_state(), torch_before)  # type: ignore[index]
    assert all(map(torch.equal, first, second)) and not all(map(torch.equal, first, other))


@pytest.mark.parametrize("kind", Kind)
def test_validation_clients_share_nothing_with_those_that_train(kind: Kind) -> None:
    config = PartitionConfig(kind=kind, clients=4, validation=2)
    training, held = parts_of(config), validation_clients(Y, config, 0, OWNERS)
    assert (len(training), len(held)) == (4, 2) and min(map(len, held)) > 0
    assert not set(torch.cat(training).tolist()) & set(torch.cat(held).tolist())


@pytest.mark.parametrize("kind", LABELS_ONLY)
def test_a_size_is_kept_exactly(kind: Kind) -> None:
    parts = parts_of(PartitionConfig(kind=kind, clients=5, size=60))
    assert [len(part) for part in parts] == [60] * 5


@given(
    st.sampled_from(LABELS_ONLY),
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 4), min_size=60, max_size=90),
)
def test_whatever_the_labels(kind: Kind, clients: int, seed: int, labels: list[int]) -> None:
    y = torch.tensor(labels)
    try:
        parts = partition(y, PartitionConfig(kind=kind, clients=clients), seed)
    except UserError as error:
        assert "at best 0 images" in str(error) or "labels_per_client=2 of 1 classes" in str(error)
        return
    assert len(parts) == clients and all(len(part) for part in parts)
    together = torch.cat(parts)
    assert len(together.unique()) == len(together) <= len(y)
    if kind is not Kind.k_labels:
        assert len(together) == len(y)


def test_iid_parts_have_one_size_give_or_take_one() -> None:
    sizes = [len(part) for part in parts_of(PartitionConfig(clients=7))]
    assert sum(sizes) == 1000 and max(sizes) - min(sizes) <= 1


def test_skew_of_five_clients_is_92_and_2_percent() -> None:
    counts = matrix(Y, parts_of(PartitionConfig(kind=Kind.skew)), 10)
    blocks = counts.reshape(5, 5, 2).sum(2)
    assert torch.equal(blocks, torch.full((5, 5), 4) + torch.eye(5, dtype=torch.long) * 180)


@pytest.mark.parametrize("clients", [10, 25, 50])
def test_skew_of_more_clients_keeps_the_share_of_its_own_block(clients: int) -> None:
    parts = parts_of(PartitionConfig(kind=Kind.skew, clients=clients))
    assert all(abs(len(part) - 1000 // clients) <= 8 for part in parts)
    blocks = [torch.bincount(Y[part], minlength=10).topk(2).values.sum() for part in parts]  # each lies in one or two
    assert sum(map(len, parts)) == 1000 and 0.9 <= sum(map(int, blocks)) / 1000 <= 0.97


@pytest.mark.parametrize(("clients", "labels"), [(5, 2), (10, 1), (7, 3), (4, 10), (50, 2)])
def test_k_labels_are_k_and_spread_over_the_classes(clients: int, labels: int) -> None:
    counts = matrix(Y, parts_of(PartitionConfig(kind=Kind.k_labels, clients=clients, labels_per_client=labels)), 10)
    assert ((counts > 0).sum(1) == labels).all()
    holders = (counts > 0).sum(0)
    assert holders.max() - holders.min() <= 1
    assert (counts.sum(0) == 100).logical_or(holders == 0).all(), (
        "an image stays out only where no client has its class"
    )


def test_a_smaller_beta_is_more_uneven_and_a_large_one_is_even() -> None:
    far = []
    for beta in (0.1, 1.0, 1000.0):
        seeds = [matrix(Y, parts_of(PartitionConfig(kind=Kind.dirichlet, beta=beta), seed), 10) for seed in range(8)]
        far.append(float(torch.stack([heterogeneity(counts).mean() for counts in seeds]).mean()))
    assert far[0] > far[1] > far[2] and far[2] < 0.05 and far[0] > 0.5


def test_an_unreachable_minimum_ends_with_the_best_found() -> None:
    config = PartitionConfig(kind=Kind.dirichlet, clients=20, beta=0.01, minimum=40)
    message = (
        rf"partition\.minimum=40 with partition\.kind=dirichlet: {TRIES} draws gave the smallest client \(number \d+\) "
        r"at best \d+ images; use partition\.minimum=\d+ or less, .*a larger partition\.beta"
    )
    with pytest.raises(UserError, match=message):
        parts_of(config)
    with pytest.raises(UserError, match=r"partition\.size=190 with partition\.kind=dirichlet"):
        parts_of(PartitionConfig(kind=Kind.dirichlet, beta=0.1, size=190))


def test_draws_are_repeated_until_the_minimum_is_there() -> None:
    loose, strict = (PartitionConfig(kind=Kind.dirichlet, beta=0.1, minimum=least) for least in (1, 60))
    assert min(map(len, parts_of(strict, 3))) >= 60
    found = [min(map(len, parts_of(loose, seed))) for seed in range(20)]
    assert min(found) < 60, "or nothing was repeated"


def test_natural_clients_are_whole_persons() -> None:
    parts = parts_of(PartitionConfig(kind=Kind.natural, clients=6))
    persons = [OWNERS[part].unique().tolist() for part in parts]
    assert all(len(each) == 1 for each in persons) and len({each[0] for each in persons}) == 6
    assert all(len(part) == int((OWNERS == each[0]).sum()) for part, each in zip(parts, persons, strict=True))


@pytest.mark.parametrize(
    ("config", "owners", "message"),
    [
        ({"clients": 1001}, None, r"partition\.clients=1001.*1000 images are too few for 1001 clients of 1 or more"),
        ({"clients": 50, "minimum": 30}, None, r"too few for 50 clients of 30 or more"),
        (
            {"kind": Kind.k_labels, "labels_per_client": 11},
            None,
            r"labels_per_client=11 of 10 classes: use 10 or less",
        ),
        ({"kind": Kind.natural}, None, r"kind=natural: nobody knows.*data\.columns\.client"),
        ({"kind": Kind.natural, "clients": 13}, OWNERS, r"clients=13.*12 of 12 persons have 1 images or more"),
        ({"kind": Kind.natural, "minimum": 200}, OWNERS, r"0 of 12 persons have 200 images or more"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    config: dict[str, Any], owners: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        partition(Y, PartitionConfig(**config), 0, owners)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"beta": 0.1}, r"partition\.beta=0\.1 changes nothing with partition\.kind=iid: .*partition=dirichlet"),
        ({"kind": Kind.skew, "labels_per_client": 3}, r"labels_per_client=3 changes nothing with partition\.kind=skew"),
        ({"kind": Kind.dirichlet, "beta": 0.0}, r"partition\.beta=0\.0: use a number above 0"),
        ({"kind": Kind.skew, "share": 1.5}, r"partition\.share=1\.5"),
        ({"kind": Kind.feature_shift, "intensity": 1.0}, r"partition\.intensity=1\.0"),
        ({"clients": 0}, r"partition\.clients=0: use 1 or more"),
        ({"size": 0}, r"partition\.size=0: use 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PartitionConfig(**words)


def test_earth_movers_distance_worked_out_by_hand() -> None:
    counts = torch.tensor([[10, 0], [5, 5], [0, 5]])  # together 15 to 10: shares 0.6 and 0.4
    assert heterogeneity(counts).tolist() == pytest.approx([0.4, 0.1, 0.6])
    assert heterogeneity(torch.tensor([[3, 9], [1, 3]])).tolist() == pytest.approx([0, 0])


def test_feature_shift_turns_and_brightens_each_client_in_its_own_way() -> None:
    config = PartitionConfig(kind=Kind.feature_shift, clients=5, rotation=40.0, intensity=0.4)
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 1:8] = 0.5  # a stroke through the middle
    seen = [shifted(x, config, client) for client in range(5)]
    assert all(image.shape == x.shape and 0 <= image.min() and image.max() <= 1 for image in seen)
    tops = [int(image[0, 0, :, 7].argmax()) for image in seen]  # where the stroke's right end went
    assert tops == sorted(tops, reverse=True) and tops[0] > tops[2] > tops[4] and tops[2] == 4
    light = [float(image[0, 0, 4, 4]) for image in seen]
    assert len(set(light)) == 5 and light != sorted(light) and light != sorted(light, reverse=True)
    assert min(light) < 0.5 < max(light)
    plain = PartitionConfig(kind=Kind.feature_shift, clients=5, rotation=0.0, intensity=0.0)
    assert torch.allclose(shifted(x, plain, 3), x, atol=1e-6)
    assert shifted(x, PartitionConfig(), 1) is x
    with pytest.raises(UserError, match=r"feature_shift: vectors cannot be turned"):
        shifted(torch.zeros(3, 2), config, 0)


def test_every_file_of_the_group_shares_out(composed: Callable[..., Any]) -> None:
    for kind in Kind:
        config = composed("data=shapes", f"partition={kind}").partition
        assert config.kind is kind and len(parts_of(config)) == config.clients


def test_a_way_that_loses_or_doubles_an_image_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in ([np.arange(999)], [np.arange(1000), np.arange(5)]):
        monkeypatch.setitem(WAYS, Kind.iid, lambda *_, parts=parts: parts)
        with pytest.raises(ValueError, match="iid: an image is with two clients, or with none"):
            parts_of(PartitionConfig(clients=len(parts)))
