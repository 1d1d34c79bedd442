"""Exact worst cases on arcs against dense grids, and bounds that are never below them."""

import math

import pytest
import torch

from fal import certify
from fal.adversary.balls import Cap
from fal.theorem.network import Network
from fal.theorem.points import circle, on_circle
from fal.theorem.static import random_points

RHO = 0.1


def trained(width: int, seed: int = 0, size: float = 3.0) -> tuple[Network, torch.Tensor]:
    """A network far from its start, in float64: neurons moved at random."""
    network = Network.draw(width, 3, [seed], torch.float64)
    draw = torch.Generator().manual_seed(100 + seed)
    shift = torch.randn(1, 1, width, 3, generator=draw, dtype=torch.float64)
    return network, network.start + size * width**-0.5 * shift


def dense(predict, weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor, half: float) -> torch.Tensor:
    """The worst of very many angles of each arc [points]."""
    turns = torch.linspace(-half, half, 8001, dtype=torch.float64)
    around = on_circle(torch.atan2(x[:, 1], x[:, 0])[:, None] + turns)
    return torch.stack(
        [(predict(weights, arc[None, None])[0, 0] - own).abs().max() for arc, own in zip(around, y, strict=True)]
    )


@pytest.mark.parametrize("width", [1, 7, 256])
@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3, 0.8])
def test_exact_arc_against_a_dense_grid(width: int, rho: float) -> None:
    network, weights = trained(width)
    x, y = circle(8)
    half = Cap(rho).widest
    points, value = certify.exact_arc(weights, network.outer, network.bias, x[None, None], y, half)
    grid = dense(network.predict, weights, x, y, half)
    assert (value[0, 0] >= grid - 1e-12).all()
    assert torch.allclose(value[0, 0], grid, atol=1e-4)
    reached = (network.predict(weights, points)[0, 0] - y).abs()
    assert torch.allclose(reached, value[0, 0], atol=1e-8)  # the point attains it
    assert ((points[0, 0] - x).norm(dim=1) <= rho + 1e-12).all()
    assert torch.allclose(points.norm(dim=-1), torch.ones(()).double())


def test_pseudo_network_jumps_at_kinks_and_its_supremum_is_found() -> None:
    network, weights = trained(64)
    x, y = circle(8)
    arcs = certify.Arcs(network.start, network.bias, x[None, None], Cap(0.2).widest)
    moved = weights - network.start
    angle, value = arcs.largest(arcs.waves(moved, torch.zeros_like(network.bias)), network.outer, y)
    reached = (network.pseudo(weights, arcs.at(angle)) - y).abs()
    assert torch.allclose(reached, value, atol=1e-8)
    assert (value[0, 0] >= dense(network.pseudo, weights, x, y, arcs.half) - 1e-12).all()


def test_float32_networks_are_searched_in_float64() -> None:
    network, weights = trained(512)
    single = [each.float() for each in (weights, network.outer, network.bias)]
    x, y = circle(8)
    points, value = certify.exact_arc(*single, x.float()[None, None], y.float(), Cap(RHO).widest)
    again = certify.exact_arc(weights, network.outer, network.bias, x[None, None], y, Cap(RHO).widest)[1]
    assert points.dtype == torch.float32 and value.dtype == torch.float64
    assert torch.allclose(value, again, atol=1e-5)


@pytest.mark.parametrize("dim", [3, 6])
@pytest.mark.parametrize("size", [0.0, 1.0, 5.0])
def test_bounds_hold_and_crown_is_the_closer_one(dim: int, size: float) -> None:
    network = Network.draw(128, dim, [2], torch.float64)
    draw = torch.Generator().manual_seed(3)
    weights = network.start + size * 128**-0.5 * torch.randn(1, 1, 128, dim, generator=draw, dtype=torch.float64)
    x, y = random_points(6, dim, 4), torch.tensor([1.0, -1.0] * 3).double()
    half = Cap(RHO).widest
    support = certify.cap(x[None, None], half)
    crown = certify.crown_bounds(weights, network.outer, network.bias, support)
    interval = certify.interval_bounds(weights, network.outer, network.bias, support)
    across = torch.randn(6, 4000, dim - 1, generator=draw, dtype=torch.float64)
    unit = (x[:, :-1] / x[:, :-1].norm(dim=1, keepdim=True))[:, None]
    across = across - (across * unit).sum(-1, keepdim=True) * unit
    turn = half * torch.rand(6, 4000, 1, generator=draw, dtype=torch.float64).sqrt()
    flat = turn.cos() * unit + turn.sin() * across / across.norm(dim=-1, keepdim=True)
    inside = torch.cat([math.sqrt(3) / 2 * flat, torch.full((6, 4000, 1), 0.5, dtype=torch.float64)], -1)
    tried = network.predict(weights, inside.flatten(0, 1)[None, None])[0, 0].reshape(6, -1)
    for bounds in (crown, interval):
        assert (bounds.low[0, 0] <= tried.amin(1) + 1e-12).all() and (bounds.high[0, 0] >= tried.amax(1) - 1e-12).all()
    assert (crown.worst(y) <= interval.worst(y) + 1e-12).all()
    if dim == 3:
        exact = certify.exact_arc(weights, network.outer, network.bias, x[None, None], y, half)[1]
        assert (crown.worst(y) >= exact - 1e-12).all()


def test_without_a_radius_all_bounds_are_the_prediction() -> None:
    network, weights = trained(64)
    x, y = circle(8)
    value = network.predict(weights, x[None, None])
    for support in (certify.cap(x[None, None], 0.0), certify.ball(x[None, None], 0.0)):
        for bounds in (certify.crown_bounds, certify.interval_bounds):
            found = bounds(weights, network.outer, network.bias, support)
            assert torch.allclose(found.low, value, atol=1e-12) and torch.allclose(found.high, value, atol=1e-12)
    exact = certify.exact_arc(weights, network.outer, network.bias, x[None, None], y, 0.0)[1]
    assert torch.allclose(exact, (value - y).abs(), atol=1e-12)


@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_supports_are_reached(norm: float) -> None:
    draw = torch.Generator().manual_seed(0)
    x, w = (torch.randn(1, 5, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    at = w[0] / w[0].norm(dim=1, keepdim=True) if norm == 2 else w[0].sign()
    expected = torch.stack([(x[0] + 0.2 * at[r]) @ w[0, r] for r in range(5)], -1)
    assert torch.allclose(certify.ball(x, 0.2, norm)(w)[0], expected)
