"""Points of X, their separability, and who holds them."""

import math

import pytest
import torch

from common.errors import UserError
from fal.theorem import points
from fal.theorem.points import circle, delta_of, half_angle, partition, separation, spread


def test_circle_is_the_reference_problem() -> None:
    x, y = circle(8)
    assert torch.allclose(x.norm(dim=1), torch.ones(8).double()) and (x[:, 2] == 0.5).all()
    found = separation(x)
    assert found.delta == pytest.approx(0.663, abs=5e-4) and found.gamma(0.1) == pytest.approx(0.307, abs=5e-4)
    assert y.tolist() == [1, -1] * 4
    assert separation(circle(8, 0.1)[0]).delta == pytest.approx(0.535, abs=5e-4)


@pytest.mark.parametrize("count, turn", [(7, None), (8, 0.2), (8, -0.1)])
def test_circle_without_room(count: int, turn: float | None) -> None:
    with pytest.raises(UserError, match="problem.turn"):
        circle(count, turn)


def test_delta_and_gamma_are_as_asked() -> None:
    delta = delta_of(0.2, 0.1)
    assert delta * (delta - 0.2) == pytest.approx(0.2)
    x, y = spread(20, 6, delta, seed=3)
    assert separation(x).delta == pytest.approx(delta, abs=1e-12)
    assert separation(x).gamma(0.1) == pytest.approx(0.2, abs=1e-12)
    assert torch.allclose(x.norm(dim=1), torch.ones(20).double()) and set(y.tolist()) == {-1.0, 1.0}
    with pytest.raises(UserError, match="found 1.2 apart"):
        spread(30, 4, 1.2, seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [7, 64, 1024])
def test_separation_is_the_smallest_distance(dtype: torch.dtype, block: int) -> None:
    x = torch.rand(200, 50, generator=torch.Generator().manual_seed(1)).to(dtype) + 5
    x[150] = x[20] + 1e-3
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    found = separation(x, block)
    assert found.delta == pytest.approx(float(distances.min()), rel=1e-9) and found.pair == (20, 150)


def test_separation_of_equal_points_and_of_one() -> None:
    x = torch.rand(30, 4)
    x[29] = x[3]
    assert separation(x, 8) == points.Separation(0.0, (3, 29))
    with pytest.raises(UserError, match="needs two"):
        separation(x[:1])


def test_balls_that_meet_are_refused_by_name() -> None:
    found = separation(circle(8)[0])
    found.check(0.3, [0] * 8)
    with pytest.raises(UserError, match=r"points 0 \(client 5\) and 1 \(client 7\) are only 0.66.*radius below 0.33"):
        found.check(0.332, [5, 7, 0, 0, 0, 0, 0, 0])


def test_cap_is_the_ball_within_x() -> None:
    x, _ = circle(4)
    angle = half_angle(0.3)
    moved = points.on_circle(torch.tensor([angle], dtype=torch.float64))
    assert float((moved - x[0]).norm()) == pytest.approx(0.3, abs=1e-12)


def test_partitions() -> None:
    x, y = circle(8)
    alike, apart, half = (partition(x, y, 4, share) for share in (0.0, 1.0, 0.5))
    assert alike.y.sum(1).tolist() == [0, 0, 0, 0]
    assert sorted(apart.y.sum(1).tolist()) == [-2, -2, 2, 2]
    assert sorted(half.y.sum(1).tolist()) == [-2, 0, 0, 2]
    for found in (alike, apart, half):
        rows = torch.cat([found.x.flatten(0, 1), found.y.flatten()[:, None]], 1)
        assert sorted(rows.tolist()) == sorted(torch.cat([x, y[:, None]], 1).tolist())
    with pytest.raises(UserError, match="problem.clients=3"):
        partition(x, y, 3)
