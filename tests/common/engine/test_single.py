"""One gradient without data: what the footprint of an inner step says of it, and what is known by hand."""

import torch
from torch import Tensor, nn

from common.engine.footprint import footprint
from common.engine.rules import SGD
from common.engine.single import gradient_peak
from common.engine.weights import Weights, call, select

NETWORK = nn.Sequential(nn.Linear(10, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 1))


def loss(weights: Weights, x: Tensor) -> Tensor:
    return call(NETWORK, weights, x).square().mean()


def test_it_is_the_first_entry_of_a_footprint() -> None:
    weights = select(NETWORK)
    for rows in (1, 500):
        x = torch.rand(rows, 10)
        whole = footprint(loss, lambda at: loss(at, x), weights, [x], SGD())  # noqa: B023 - called at once
        assert gradient_peak(loss, weights, x) == whole.first


def test_it_holds_the_gradient_and_the_activations_and_nothing_is_left() -> None:
    weights, rows = select(NETWORK), 1000
    own = sum(4 * weight.numel() for weight in weights.values())
    found = gradient_peak(loss, weights, torch.rand(rows, 10))
    activations = 4 * rows * (300 + 300)
    assert own + activations < found < own + 4 * activations
    assert all(weight.grad is None for weight in NETWORK.parameters())
    half = gradient_peak(
        loss, {name: weight for name, weight in weights.items() if name.startswith("4")}, torch.rand(rows, 10)
    )
    assert half < found
