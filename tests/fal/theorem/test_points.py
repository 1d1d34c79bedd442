"""Points of X, their separability, and who holds them."""

import math

import pytest
import torch

from common.errors import UserError
from fal.adversary.balls import Cap
from fal.theorem import points
from fal.theorem.points import circle, partition, separation, spread


def test_circle_is_the_reference_problem() -> None:
    x, y = circle(8)
    assert torch.allclose(x.norm(dim=1), torch.ones(8).double()) and (x[:, 2] == 0.5).all()
    found = separation(x, y)
    assert found.delta == pytest.approx(0.663, abs=5e-4) and found.gamma(0.1) == pytest.approx(0.307, abs=5e-4)
    assert y.tolist() == [1, -1] * 4
    assert separation(*circle(8, 0.1)).delta == pytest.approx(0.535, abs=5e-4)


@pytest.mark.parametrize("count, turn", [(7, None), (8, 0.2), (8, -0.1)])
def test_circle_without_room(count: int, turn: float | None) -> None:
    with pytest.raises(UserError, match="problem.turn"):
        circle(count, turn)


def test_delta_and_gamma_are_as_asked() -> None:
    delta = 0.1 + math.sqrt(0.1**2 + 0.2)  # delta (delta - 2 rho) = 0.2
    x, y = spread(20, 6, delta, seed=3)
    assert separation(x, y).delta == pytest.approx(delta, abs=1e-12)
    assert separation(x, y).gamma(0.1) == pytest.approx(0.2, abs=1e-12)
    assert torch.allclose(x.norm(dim=1), torch.ones(20).double()) and set(y.tolist()) == {-1.0, 1.0}
    with pytest.raises(UserError, match="found 1.2 apart"):
        spread(30, 4, 1.2, seed=0)


def test_separation_of_equal_points_and_of_one() -> None:
    x = torch.rand(30, 4)
    x[29] = x[3]
    assert separation(x, torch.arange(30)) == points.Separation(0.0, (3, 29))
    with pytest.raises(UserError, match="needs two"):
        separation(x[:1], torch.ones(1))


def test_balls_that_meet_are_refused_by_name() -> None:
    found = separation(*circle(8))
    found.check(0.3, [0] * 8)
    with pytest.raises(UserError, match=r"points 0 \(client 5\) and 1 \(client 7\) are only 0.66.*radius below 0.33"):
        found.check(0.332, [5, 7, 0, 0, 0, 0, 0, 0])


def test_cap_is_the_ball_within_x() -> None:
    x, _ = circle(4)
    angle = Cap(0.3).widest
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
