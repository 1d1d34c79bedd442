"""The closest points of a set against all pairs in float64."""

import pytest
import torch

from fal.images.distances import closest


def brute_force(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    apart = torch.cdist(x.flatten(1).double(), x.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist")
    apart.fill_diagonal_(torch.inf)
    return float(apart.min()), float(apart.masked_fill(y[:, None] == y[None], torch.inf).min())


@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("near", [0.0, 1e-7, 1e-3, 1.0])
def test_the_closest_points_are_those_of_all_pairs(block: int, near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal.images.distances.BLOCK", block)
    x, y = 100 + torch.rand(60, 1, 5, 5), torch.arange(60) % 3  # far from 0, where float32 would lose the difference
    x[41] = x[11] + near * torch.rand(1, 5, 5)
    found = closest(x, y)
    for pair, distance in zip(found, brute_force(x, y), strict=True):
        assert pair.distance == pytest.approx(distance, rel=1e-12, abs=1e-300)
        both = x[pair.first].double(), x[pair.second].double()
        assert float((both[0] - both[1]).norm()) == pytest.approx(distance, rel=1e-12, abs=1e-300)
    if near < 0.1:
        assert {found[0].first, found[0].second} == {11, 41}
    assert y[found[1].first] != y[found[1].second]


def test_equal_points_and_single_classes_are_no_trouble() -> None:
    every, other = closest(torch.zeros(50, 3), torch.zeros(50, dtype=torch.long))
    assert every.distance == 0 and other.distance == torch.inf and other.first == -1
