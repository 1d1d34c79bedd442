"""Aggregation rules against numbers worked out by hand and against what they promise, and what a server refuses."""

import math
from typing import Any

import pytest
import torch

from common.engine.weights import Weights
from common.errors import UserError
from fal import server
from fal.settings import Form
from fal.trust import Aggregator, AggregatorConfig
from tests.fal.small import apart, federation, method, trained

EVEN = [0.25] * 4


def updates(*values: list[float]) -> list[Weights]:
    return [{"w": torch.tensor(each, dtype=torch.float64)} for each in values]


def rule(name: str, **keys: Any) -> AggregatorConfig:
    return AggregatorConfig(Aggregator(name), **keys)


def test_median_and_trimmed_mean_go_by_coordinate() -> None:
    given = updates([1, 10], [2, 20], [3, -50], [100, 40])
    assert server.aggregate(rule("median"), given, EVEN)["w"].tolist() == [2.5, 15]
    assert server.aggregate(rule("median"), given[:3], EVEN)["w"].tolist() == [2, 10]
    assert server.aggregate(rule("trimmed_mean", trimmed=1), given, EVEN)["w"].tolist() == [2.5, 15]
    with pytest.raises(UserError, match="aggregator.trimmed=2 of 4 updates leaves none; use less than 2"):
        server.aggregate(rule("trimmed_mean", trimmed=2), given, EVEN)


def test_krum_takes_the_update_among_its_neighbours() -> None:
    """Of five on a line with f = 1 two neighbours count: 4 + 1, 1 + 4 and so on."""
    given = updates([0.0], [1.0], [1.5], [3.0], [100.0])
    assert server.krum_order(given, 1) == [1, 2, 0, 3, 4]
    assert server.aggregate(rule("krum", byzantine=1), given, EVEN)["w"].tolist() == [1.0]
    assert server.aggregate(rule("multi_krum", byzantine=1, kept=2), given, EVEN)["w"].tolist() == [1.25]
    with pytest.raises(UserError, match=r"byzantine=1 of 4 updates: Krum needs more than 2 f \+ 2 = 4"):
        server.aggregate(rule("krum", byzantine=1), given[:4], EVEN)


def test_the_geometric_median_has_balanced_directions() -> None:
    given = updates([0, 0], [4, 0], [0, 3], [50, 70])
    found = server.aggregate(rule("geometric_median", iterations=2000), given, EVEN)["w"]
    away = torch.stack([each["w"] - found for each in given])
    assert float((away / away.norm(dim=1, keepdim=True)).sum(0).norm()) < 1e-6
    twice = server.aggregate(rule("geometric_median", iterations=2000), given[:2], [0.75, 0.25])["w"]
    torch.testing.assert_close(twice, given[0]["w"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name, keys, message",
    [
        ("trimmed_mean", {"trimmed": -1}, "aggregator.trimmed=-1: use 0 or more"),
        ("multi_krum", {"byzantine": 0, "kept": 0}, "aggregator.kept=0: use 1 or more"),
        ("clipping", {"norm": math.nan}, "aggregator.norm=nan: use a length above 0"),
        ("clipping", {"norm": 0.0}, "aggregator.norm=0: use a length above 0"),
        ("median", {"norm": 1.0}, "aggregator.norm=1.0 with aggregator=median, which does not read it"),
    ],
)
def test_a_rule_with_an_impossible_number_is_told_what_to_use(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule(name, **keys)


def test_clipping_bounds_the_length() -> None:
    found = server.aggregate(rule("clipping", norm=5.0), updates([3, 4], [30, 40]), [0.5, 0.5])["w"]
    torch.testing.assert_close(found, torch.tensor([3.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "config",
    [
        rule("median"), rule("trimmed_mean", trimmed=1), rule("geometric_median", iterations=9),
        rule("krum", byzantine=1), rule("multi_krum", byzantine=1, kept=2),
    ],
    ids=lambda config: config.name,
)  # fmt: skip
def test_one_far_update_moves_a_robust_rule_little(config: AggregatorConfig) -> None:
    draw = torch.Generator().manual_seed(0)
    honest = [{"w": torch.randn(7, generator=draw, dtype=torch.float64)} for _ in range(6)]
    bad = {"w": torch.full((7,), 1e5, dtype=torch.float64)}
    found = server.aggregate(config, [*honest, bad], [1 / 7] * 7)["w"]
    assert float(found.abs().max()) < 4


def test_any_rule_goes_with_any_method_and_optimiser() -> None:
    from tests.fal.small import optimiser

    expected = trained(federation("fat"))
    for name in ("median", "geometric_median"):
        for kind in ("fedprox", "scaffold", "fednova"):
            config = rule(name, **({"iterations": 3} if name == "geometric_median" else {}))
            found = trained(federation("sfat", aggregator=config, optimised=optimiser(kind)))
            assert 1e-6 < apart(found, expected) < 3


def test_sfat_favours_the_smallest_losses() -> None:
    settings = method("sfat", alpha=0.5, favoured=2)
    shares = server.slack_shares([3.0, 1.0, 2.0, 4.0], [1.0] * 4, settings)("w")
    assert shares == pytest.approx([1 / 8, 3 / 8, 3 / 8, 1 / 8])
    sized = server.slack_shares([3.0, 1.0], [3.0, 1.0], method("sfat", alpha=0.5))("w")
    assert sized == pytest.approx([0.5, 0.5])
    assert sum(server.slack_shares([1.0, 2.0], [3.0, 1.0], method("sfat", form=Form.released))("w")) == pytest.approx(1)


# ---- what is refused

LIKE = {"a": torch.zeros(2, 3), "b": torch.zeros(2)}


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"a": torch.zeros(2, 3)}, "has other names than the network: b"),
        ({**LIKE, "c": torch.zeros(1)}, "has other names than the network: c"),
        ({**LIKE, "a": torch.zeros(3, 2)}, r"a has shape \[3, 2\] in place of \[2, 3\]"),
        ({**LIKE, "b": torch.zeros(2).double()}, "b has type torch.float64 in place of torch.float32"),
        ({**LIKE, "b": torch.tensor([0, torch.nan])}, "is not finite"),
        ({**LIKE, "b": torch.tensor([0, torch.inf])}, "is not finite"),
        (LIKE, "^$"),
    ],
)
def test_an_update_of_another_network_is_refused(update: Weights, reason: str) -> None:
    import re

    assert re.search(reason, server.fault(update, LIKE))


def test_an_update_far_longer_than_the_others_is_refused() -> None:
    assert server.too_long([1.0, 2.0, 3.0, 1.9e6]) == []
    assert server.too_long([1.0, 2.0, 3.0, 2.1e6]) == [3]
    assert server.too_long([0.0, 0.0, 1.0]) == [] and server.too_long([]) == []
