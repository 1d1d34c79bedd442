"""Balls of an attack: where points may be, where steps go, and what a radius of 0 leaves."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from fal.adversary.balls import HEIGHT, L2, RADIUS, Ball, Cap, Linf, ball_of, normals
from fal.adversary.config import AttackConfig, Kind, Norm, Start
from fal.attack import attack
from tests.fal.pictures import draws_of


def on_x(count: int, dimensions: int, draw: torch.Generator) -> Tensor:
    """Random points of X = {|x| = 1, last coordinate 1/2}."""
    head = torch.randn(count, dimensions - 1, generator=draw, dtype=torch.float64)
    head = RADIUS * head / head.norm(dim=1, keepdim=True)
    return torch.cat([head, torch.full((count, 1), HEIGHT, dtype=torch.float64)], 1)


def angles(at: Tensor, x: Tensor) -> Tensor:
    """On the sphere of the first coordinates."""
    return torch.acos(((at * x)[:, :-1].sum(1) / RADIUS**2).clamp(-1, 1))


def test_500_random_attacks_stay_in_ball_and_box() -> None:
    draw = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    for case in range(500):
        norm, kind = (Norm.linf, Norm.l2)[case % 2], list(Kind)[case % 4]
        uniform = torch.rand(4, generator=draw).tolist()
        eps = 10 ** (-3 + 3 * uniform[0]) * (3 if norm is Norm.l2 else 1)
        steps = 1 if kind is Kind.fgsm else 1 + int(8 * uniform[1])
        step_size = None if kind is Kind.apgd else 2 * eps * max(uniform[2], 0.01)
        start = list(Start)[case % 5]
        config = AttackConfig(kind, norm, eps, steps, step_size, 2 if start is not Start.none else 1, start=start)
        x = (2 * torch.rand(3, 1, 3, 4, generator=draw) - 0.5).clamp(0, 1)  # many pixels at the edges of the box
        at = attack(lambda points: network(points)[:, 0], x, ball_of(config), config, draws_of(x))
        moved = (at - x).flatten(1)
        assert (moved.abs().amax() if norm is Norm.linf else moved.norm(dim=1).amax()) <= eps + 1e-6, config
        assert at.amin() >= 0 and at.amax() <= 1, config


@pytest.mark.parametrize("dimensions", [3, 4, 9])
def test_attacks_on_the_sphere_stay_in_the_cap(dimensions: int) -> None:
    draw = torch.Generator().manual_seed(dimensions)
    for case in range(40):
        x = on_x(6, dimensions, draw)
        rho = [0.001, 0.1, 0.5, 1.0][case % 4]
        kind = (Kind.pgd, Kind.mim, Kind.apgd)[case % 3]
        config = AttackConfig(kind, Norm.cap, rho, steps=7)
        hidden = torch.randn(dimensions, 5, generator=draw, dtype=torch.float64)
        at = attack(lambda points, hidden=hidden: (points @ hidden).relu().sum(1), x, Cap(rho), config, draws_of(x))
        assert ((at - x).norm(dim=1) <= rho + 1e-9).all()
        torch.testing.assert_close(at.norm(dim=1), torch.ones(6, dtype=torch.float64))
        assert (at[:, -1] == HEIGHT).all()


@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0), Cap(0.0)], ids=str)
@pytest.mark.parametrize("kind", [Kind.pgd, Kind.mim, Kind.apgd])
def test_radius_0_gives_the_points_exactly(ball: Ball, kind: Kind) -> None:
    x = on_x(5, 6, torch.Generator().manual_seed(1))
    if not isinstance(ball, Cap):
        x = x.abs().float()
    config = AttackConfig(kind, steps=3, restarts=2)
    at = attack(lambda points: points.square().sum(1), x, ball, config, lambda _: torch.rand(x.shape))
    assert torch.equal(at, x)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3), Cap(0.2)], ids=str)
def test_a_projection_is_the_identity_on_the_ball(ball: Ball) -> None:
    draw = torch.Generator().manual_seed(2)
    x = on_x(50, 5, draw) if isinstance(ball, Cap) else torch.rand(50, 5, generator=draw, dtype=torch.float64)
    at = ball.project(x + torch.randn(50, 5, generator=draw, dtype=torch.float64), x)
    torch.testing.assert_close(ball.project(at, x), at, rtol=0, atol=1e-14)


@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_bounds_taken_once_are_the_ball_and_then_the_box_to_the_bit(box: tuple[float, float] | None) -> None:
    draw = torch.Generator().manual_seed(9)
    x, at = torch.rand(500, 5, generator=draw), 3 * torch.rand(500, 5, generator=draw) - 1
    inside = at.clamp(x - 0.1, x + 0.1)
    expected = inside if box is None else inside.clamp(*box)
    before = at.clone()
    assert torch.equal(Linf(0.1, box).project(at, x), expected) and torch.equal(at, before)
    assert torch.equal(Linf(0.1, box).around(x)(at), expected)


@pytest.mark.parametrize(
    "ball, size",
    [(Linf(0.1, box=None), lambda moved: moved.abs().amax(1)), (L2(0.3, box=None), lambda moved: moved.norm(dim=1))],
    ids=["linf", "l2"],
)
def test_starts_are_uniform_in_the_ball(ball: Ball, size: object) -> None:
    x = torch.rand(4000, 5, dtype=torch.float64)
    moved = ball.start(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)) - x
    assert kstest((size(moved) / ball.radius) ** 5, "uniform").pvalue > 0.001  # type: ignore[operator]
    assert moved.mean(0).abs().max() < 4 * ball.radius / math.sqrt(4000)


def test_starts_are_uniform_on_the_arc() -> None:
    x = on_x(1, 3, torch.Generator().manual_seed(4)).expand(4000, -1)
    ball = Cap(0.4)
    at = ball.start(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype))
    side = (x[:, 0] * at[:, 1] - x[:, 1] * at[:, 0]).sign()
    assert kstest((1 + side * angles(at, x) / ball.widest) / 2, "uniform").pvalue > 0.001


def test_starts_on_a_cap_turn_in_all_directions() -> None:
    x = on_x(1, 6, torch.Generator().manual_seed(6)).expand(4000, -1)
    ball = Cap(0.1)
    at = ball.start(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype))
    assert kstest((angles(at, x) / ball.widest) ** 4, "uniform").pvalue > 0.001  # flat: four dimensions
    across = torch.randn(6, dtype=torch.float64)
    across[-1] = 0
    across -= (across @ x[0]) / RADIUS**2 * torch.cat([x[0, :-1], torch.zeros(1)])
    assert ((at - x) @ across).sign().mean().abs() < 0.06


def test_normals_are_those_of_the_distribution_function() -> None:
    uniform = torch.tensor([0.5, 0.8413447460685429, 0.0013498980316300933], dtype=torch.float64)
    torch.testing.assert_close(normals(uniform), torch.tensor([0.0, 1.0, -3.0], dtype=torch.float64))
    assert normals(torch.zeros(1)).isfinite().all() and normals(torch.tensor([1 - 2**-24])).isfinite().all()


def test_a_linear_gain_ends_at_its_maximum() -> None:
    """Over each ball the maximum of <w, .> is known, and steps reach it from everywhere."""
    draw = torch.Generator().manual_seed(8)
    x, w = on_x(20, 5, draw), torch.randn(5, generator=draw, dtype=torch.float64)
    tangent = w[:-1] - (x[:, :-1] @ w[:-1] / RADIUS**2)[:, None] * x[:, :-1]
    turned = math.cos(Cap(0.2).widest) * x[:, :-1] + RADIUS * math.sin(Cap(0.2).widest) * nn.functional.normalize(
        tangent
    )
    known = {
        Linf(0.2, box=None): x + 0.2 * w.sign(),
        L2(0.2, box=None): x + 0.2 * w / w.norm(),
        Cap(0.2): torch.cat([turned, x[:, -1:]], 1),
    }
    for ball, best in known.items():
        config = AttackConfig(eps=0.2, steps=150, step_size=0.1)
        torch.testing.assert_close(attack(lambda points: points @ w, x, ball, config, draws_of(x)), best)


def test_the_projection_to_an_arc_is_the_nearest_of_a_fine_grid() -> None:
    draw = torch.Generator().manual_seed(9)
    x, ball = on_x(30, 3, draw), Cap(0.3)
    at = x + torch.tensor([1.0, 1.0, 0.0]) * torch.randn(30, 3, generator=draw, dtype=torch.float64)
    first = torch.atan2(x[:, 1], x[:, 0])[:, None]
    grid = first + torch.linspace(-ball.widest, ball.widest, 20001, dtype=torch.float64)
    arc = RADIUS * torch.stack([grid.cos(), grid.sin()], 2)
    straight = nn.functional.normalize(at[:, :-1])
    nearest = arc[torch.arange(30), (arc @ straight[:, :, None])[..., 0].argmax(1)]
    torch.testing.assert_close(ball.project(at, x)[:, :-1], nearest, rtol=0, atol=1e-4)


def test_vanishing_gradients_still_give_whole_steps() -> None:
    """Squares of 1e-30 are 0 in float32; where the gradient itself is 0 nothing moves."""
    x = torch.full((2, 3), 0.5)
    gradient = torch.tensor([[3e-30, 4e-30, 0.0], [0.0, 0.0, 0.0]])
    moved = L2(1.0).step(x, gradient, 0.1) - x
    torch.testing.assert_close(moved, torch.tensor([[0.06, 0.08, 0.0], [0.0, 0.0, 0.0]]))
    y = on_x(2, 3, torch.Generator().manual_seed(10))
    assert torch.equal(Cap(0.1).step(y, torch.zeros_like(y), 0.1), y)
