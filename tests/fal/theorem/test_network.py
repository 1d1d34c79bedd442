"""The theory network, its pseudo-network and the static lemmas of the fact sheet, section 2.3."""

import math

import numpy as np
import pytest
import torch

from fal.theorem import static
from fal.theorem.network import Loss, Network, Pseudo
from fal.theorem.points import on_circle

SEEDS = range(3)


def setting(width: int = 64, dim: int = 4, clients: int = 2):
    """A network of two runs, weights near its start and points of two clients, in float64."""
    network = Network.draw(width, dim, [0, 1], torch.float64)
    draw = torch.Generator().manual_seed(5)
    shift = torch.randn(2, clients, width, dim, generator=draw, dtype=torch.float64) * width**-0.5
    x = static.random_points(clients * 3, dim, 1).reshape(clients, 3, dim)[None]
    return network, network.start + shift, x


def test_network_is_the_one_of_the_sheet() -> None:
    network = Network.draw(4096, 5, SEEDS, torch.float64)
    assert torch.allclose(network.outer.abs(), torch.tensor(4096 ** (-1 / 3), dtype=torch.float64))
    assert (network.outer > 0).double().mean() == pytest.approx(0.5, abs=0.02)
    assert network.start.var() * 4096 == pytest.approx(1, rel=0.03)
    assert network.bias.var() * 4096 == pytest.approx(1, rel=0.05)
    single = Network.draw(4096, 5, SEEDS)
    assert torch.equal(single.start, network.start.float()) and single.outer.dtype == torch.float32


def test_predictions_equal_a_loop_over_neurons() -> None:
    network, weights, x = setting()
    run, client, point = 1, 0, 2
    w0, w, b, a = network.start[run, 0], weights[run, client], network.bias[run, 0], network.outer[run, 0]
    at = x[0, client, point]
    f = sum(float(a[r]) * max(float(w[r] @ at + b[r]), 0.0) for r in range(len(a)))
    g = sum(float(a[r] * ((w[r] - w0[r]) @ at)) for r in range(len(a)) if w0[r] @ at + b[r] >= 0)
    assert float(network.predict(weights, x)[run, client, point]) == pytest.approx(f, abs=1e-12)
    assert float(network.pseudo(weights, x)[run, client, point]) == pytest.approx(g, abs=1e-12)


def test_pseudo_network_is_the_first_order_expansion() -> None:
    network, weights, x = setting()
    start = network.start.clone().requires_grad_()
    direction = (weights - network.start)[:, :1]
    value, slope = torch.autograd.functional.jvp(lambda w: network.predict(w, x), start, direction)
    assert torch.allclose(network.pseudo(network.start + direction, x), slope, atol=1e-12)
    twice = network.pseudo(network.start + 2 * direction, x)
    assert torch.allclose(twice, 2 * network.pseudo(network.start + direction, x), atol=1e-12)


def test_the_worst_case_of_the_pseudo_network_is_no_less_than_a_fine_grids() -> None:
    network, weights, _ = setting(dim=3)
    linear = Pseudo(network.outer, network.bias, network.start)
    angle, half = torch.tensor([[0.3, 2.0], [-1.0, 3.0]], dtype=torch.float64), 0.2
    y = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    at, value = linear.worst(weights, on_circle(angle)[None], y[None], half)
    around = on_circle(angle[..., None] + torch.linspace(-half, half, 2001, dtype=torch.float64)).flatten(1, 2)
    tried = (network.pseudo(weights, around[None]).unflatten(2, (2, 2001)) - y[..., None]).abs().amax(-1)
    assert (value >= tried - 1e-12).all() and torch.allclose(value, tried, atol=5e-3)
    assert torch.allclose((linear.predict(weights, at) - y).abs(), value, atol=1e-6)
    assert torch.equal(linear.active(weights, at), network.active(network.start, at))


@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_gradients_equal_autograd(bend: float) -> None:
    network, weights, x = setting()
    loss, y = Loss(bend), torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]).double()
    for predict, at in ((network.predict, weights), (network.pseudo, network.start.expand_as(weights))):
        leaf = weights.clone().requires_grad_()
        loss.value(predict(leaf, x) - y).mean(-1).sum().backward()
        by_hand = network.gradient(network.active(at, x), loss.slope(predict(weights, x) - y), x)
        assert torch.allclose(leaf.grad, by_hand, atol=1e-13)


@pytest.mark.parametrize("bend", [0.0, 0.5])
def test_loss_is_convex_lipschitz_and_zero_at_zero(bend: float) -> None:
    loss, r = Loss(bend), torch.linspace(-2, 2, 401, dtype=torch.float64)
    value = loss.value(r)
    assert float(loss.value(torch.zeros(()))) == 0 and (value >= 0).all()
    assert (value.diff().abs() <= r.diff() + 1e-12).all()
    assert (value.diff().diff() >= -1e-12).all()
    middle = (r[1:] + r[:-1]) / 2
    assert torch.allclose(value.diff() / r.diff(), loss.slope(middle), atol=0.02)


def measured(widths: list[int], seeds: range) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for m in widths:
        each = [
            static.static_lemmas(Network.draw(m, 6, [seed]), static.random_points(100, 6, 1000 + seed), 4.0, 1.0)
            for seed in seeds
        ]
        for name in each[0]:
            found.setdefault(name, []).append(float(np.mean([one[name] for one in each])))
    return found


def test_static_lemmas() -> None:
    """Constants within 10 %, slopes within 0.03 (issue, acceptance 2)."""
    widths = [256, 1024, 4096, 16384]
    found = measured(widths, range(4))
    for name, slope in (("one_sided_gap", -1 / 6), ("flip_fraction", -1 / 6)):
        predicted = [static.PREDICTED[name](m, 4.0, 1.0) for m in widths]
        assert found[name] == pytest.approx(predicted, rel=0.1)
        assert np.polyfit(np.log(widths), np.log(found[name]), 1)[0] == pytest.approx(slope, abs=0.03)
    assert np.polyfit(np.log(widths), np.log(found["start_output"]), 1)[0] == pytest.approx(-1 / 3, abs=0.05)
    assert found["kernel_error"][-1] < found["kernel_error"][0] / 4  # m^(-1/2)


def test_kernel_is_that_of_the_gradients() -> None:
    network = Network.draw(32, 3, [0], torch.float64)
    x = static.random_points(4, 3, 2)
    start = network.start.clone().requires_grad_()
    rows = [torch.autograd.grad(network.predict(start, x[None, None])[0, 0, i], start)[0].flatten() for i in range(4)]
    gram = torch.stack(rows) @ torch.stack(rows).T / 32 ** (1 / 3)
    before = x @ network.start[0, 0].T + network.bias[0]
    assert torch.allclose(static.kernel(before >= 0, x), gram, atol=1e-12)
    assert float(static.limit_kernel(x)[0, 0]) == pytest.approx(0.5) and math.isclose(float(x[0] @ x[0]), 1)
