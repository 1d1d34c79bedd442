"""The algorithm: exact identities, and the batched loop against plain loops over runs, clients and steps."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from fal.adversary.balls import Cap
from fal.certify import exact_arc
from fal.theorem.adversary import adversary_of
from fal.theorem.config import AdversaryConfig, AdversaryName, FederatedConfig, LocalRate, Refresh
from fal.theorem.coordinates import Recorder
from fal.theorem.federated import Round, federated
from fal.theorem.network import Loss, Network, Pseudo
from fal.theorem.points import Points, circle, partition
from fal.theorem.regret import Regret, best_fixed

WIDTH, RHO = 64, 0.1
LONG = FederatedConfig(rounds=30, step=3.2)


def trained(
    config: FederatedConfig = LONG,
    clients: int = 4,
    one_label: float = 0.0,
    rho: float = RHO,
    loss: Loss | None = None,
    permuted: bool = False,
    dtype: torch.dtype = torch.float64,
    name: AdversaryName = AdversaryName.exact,
    watch: Callable[[Round], None] = lambda _: None,
) -> Tensor:
    """U(T) of two seeds on the reference problem."""
    network = Network.draw(WIDTH, 3, [0, 1], dtype)
    points = partition(*circle(8), clients, one_label)
    if permuted:
        points = Points(points.x.flip(0), points.y.flip(0))
    adversary = adversary_of(network, rho, AdversaryConfig(name=name))
    return federated(network, points, loss or Loss(), adversary, config, watch)


def slow(config: FederatedConfig, rho: float, loss: Loss, eta_local: float, eta_global: float) -> Tensor:
    """The algorithm box of section 1.5, one run, one client and one step after the other, by autograd."""
    found = []
    points = partition(*circle(8), 4, 1.0)
    for seed in (0, 1):
        network = Network.draw(WIDTH, 3, [seed], torch.float64)
        u = network.start.clone()
        for _ in range(config.rounds):
            moved = []
            for x, y in zip(points.x, points.y, strict=True):
                w, half = u.clone(), Cap(rho).widest
                for k in range(config.local_steps):
                    if k == 0 or config.refresh is Refresh.step:
                        at, _ = exact_arc(w, network.outer, network.bias, x[None, None], y, half)
                    w = w.requires_grad_()
                    loss.value(network.predict(w, at) - y).mean().backward()
                    w = w.detach() - eta_local * w.grad
                moved.append(w - u)
            u = u + eta_global * torch.stack(moved).mean(0)
        found.append(u[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("refresh", list(Refresh))
@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_batched_loop_equals_plain_loops(refresh: Refresh, bend: float) -> None:
    config = FederatedConfig(rounds=6, local_steps=3, step=20.0, refresh=refresh)
    eta_local = 1 / 3
    eta_global = 20.0 * WIDTH ** (-1 / 3) / (3 * eta_local)
    expected = slow(config, RHO, Loss(bend), eta_local, eta_global)
    assert torch.allclose(trained(config, one_label=1.0, loss=Loss(bend)), expected, atol=1e-12, rtol=0)


def test_one_local_step_knows_no_clients_and_no_partition() -> None:
    expected = trained(clients=1)
    for clients in (2, 4, 8):
        for one_label in (0.0, 1.0):
            assert torch.allclose(trained(clients=clients, one_label=one_label), expected, atol=1e-12, rtol=0)
    single = trained(clients=1, dtype=torch.float32)
    assert torch.allclose(trained(dtype=torch.float32), single, atol=1e-6, rtol=0)


def test_many_local_steps_know_them() -> None:
    config = replace(LONG, local_steps=4)
    assert (trained(config, one_label=1.0) - trained(config)).abs().max() > 1e-3


def test_one_client_is_centralised_training_with_the_product_of_the_rates() -> None:
    config = replace(LONG, rounds=8, local_steps=1)
    network, points = Network.draw(WIDTH, 3, [0, 1], torch.float64), partition(*circle(8), 1)
    w = network.start
    for _ in range(config.rounds):
        x, _ = exact_arc(w, network.outer, network.bias, points.x[None], points.y[None], Cap(RHO).widest)
        slopes = Loss().slope(network.predict(w, x) - points.y)
        w = w - 3.2 * WIDTH ** (-1 / 3) * network.gradient(network.active(w, x), slopes, x)
    assert torch.allclose(trained(config, clients=1), w[:, 0], atol=1e-12, rtol=0)


def test_server_rate_one_is_the_mean_of_the_local_models() -> None:
    local = 2.0 * WIDTH ** (-1 / 3)
    config = replace(LONG, rounds=1, local_steps=3, local_rate=LocalRate.width, width_factor=2.0, step=2.0)
    seen: list[Round] = []
    after = trained(config, watch=seen.append)
    assert float(seen[0].eta_local[0]) == pytest.approx(local / 3)
    alone = []
    network, points = Network.draw(WIDTH, 3, [0, 1], torch.float64), partition(*circle(8), 4)
    for client in range(4):
        own = Points(points.x[client : client + 1], points.y[client : client + 1])
        adversary = adversary_of(network, RHO, AdversaryConfig())
        alone.append(federated(network, own, Loss(), adversary, config))
    assert torch.allclose(after, torch.stack(alone).mean(0), atol=1e-12, rtol=0)


def test_without_a_radius_the_adversary_changes_nothing() -> None:
    config = replace(LONG, local_steps=3)
    clean = trained(config, name=AdversaryName.none)
    assert torch.equal(trained(config, rho=0.0), clean)
    assert not torch.equal(trained(config), clean)


def test_order_of_the_clients_changes_nothing() -> None:
    config = replace(LONG, local_steps=3)
    assert torch.allclose(trained(config, permuted=True), trained(config), atol=1e-12, rtol=0)


def test_runs_are_independent_of_each_other() -> None:
    config, points = replace(LONG, local_steps=2), partition(*circle(8), 4)
    network = Network.draw(WIDTH, 3, [1], torch.float64)
    alone = federated(network, points, Loss(), adversary_of(network, RHO, AdversaryConfig()), config)
    assert torch.allclose(trained(config)[1:], alone, atol=1e-12, rtol=0)


def test_rules_share_the_step_and_the_measured_one_holds_its_drift() -> None:
    seen: dict[LocalRate, list[Round]] = {rule: [] for rule in LocalRate}
    for rule, rounds in seen.items():
        trained(replace(LONG, local_steps=5, local_rate=rule, drift=0.2), one_label=1.0, watch=rounds.append)
    last = {rule: rounds[-1] for rule, rounds in seen.items()}
    assert float(last[LocalRate.paper].eta_local[0]) == pytest.approx(1 / 5)
    assert float(last[LocalRate.width].eta_local[0]) == pytest.approx(0.1 * WIDTH ** (-1 / 3) / 5)
    assert last[LocalRate.measured].drift.tolist() == pytest.approx([0.2, 0.2], rel=0.3)
    assert (last[LocalRate.width].drift < 0.1).all() and (last[LocalRate.paper].drift > 0.5).all()


def test_weaker_adversaries_are_never_above_the_exact_one() -> None:
    """PGD-20 is within 1e-3 of it on 95 % of the points (issue, acceptance 2)."""
    network, points = Network.draw(512, 3, range(20), torch.float64), partition(*circle(8), 4)
    x, y = points.x[None], points.y[None]
    exact = adversary_of(network, RHO, AdversaryConfig())
    config = FederatedConfig(rounds=40, step=20.0)
    weights = federated(network, points, Loss(), exact, config)[:, None]
    top = (network.predict(weights, exact(weights, x, y, (0, 0))) - y).abs()
    below = {}
    for name in (AdversaryName.none, AdversaryName.fgsm, AdversaryName.grid, AdversaryName.pgd):
        weaker = adversary_of(network, RHO, AdversaryConfig(name=name, angles=33, steps=20, restarts=3))
        moved = weaker(weights, x, y, (0, 0))
        assert moved.shape == (20, 4, 2, 3)
        assert float((moved - x).norm(dim=-1).max()) <= RHO + 1e-9
        below[name] = top - (network.predict(weights, moved) - y).abs()
        assert float(below[name].min()) > -1e-5
    assert below[AdversaryName.none].mean() > below[AdversaryName.fgsm].mean() > below[AdversaryName.grid].mean()
    assert (below[AdversaryName.pgd] < 1e-3).double().mean() >= 0.95


def test_arcs_need_a_circle() -> None:
    with pytest.raises(UserError, match="adversary.name=exact with problem.dim=5"):
        adversary_of(Network.draw(8, 5, [0]), RHO, AdversaryConfig())


@pytest.mark.parametrize("local_steps", [1, 4])
def test_regret_stays_below_its_bounds(local_steps: int) -> None:
    """The bound with the coupling follows whatever the width; the plain one holds at this step."""
    network, points = Network.draw(256, 3, [0, 1]), partition(*circle(8), 4)
    adversary = adversary_of(network, RHO, AdversaryConfig())
    fixed = best_fixed(network, points, Loss(), Cap(RHO).widest, 3.2 * 100, 60)
    regret = Regret(network, Loss(), fixed, 3.2)
    recorder = Recorder(network, points, Loss(), adversary, 3.2, 1, regret)
    config = FederatedConfig(rounds=100, local_steps=local_steps, local_rate=LocalRate.width)
    federated(network, points, Loss(), adversary, config, recorder.watch)
    lost = recorder.curve("regret")
    assert len(lost) == 100 and (lost > 0).all()
    assert (lost <= recorder.curve("regret_bound")).all()
    assert (lost <= recorder.curve("regret_bound_coupled") + 1e-5).all()
    over = (lost - recorder.curve("regret_bound")).cummax(0).values
    assert torch.equal(recorder.curve("regret_over"), over)
    assert (recorder.curve("regret_over_coupled")[-1] <= 1e-5).all()


@pytest.mark.parametrize("step", [0.2, 0.8, 3.2])
def test_regret_of_the_pseudo_network_stays_below_the_plain_bound(step: float) -> None:
    """Nothing couples there, so it holds at every t of every run, at steps at which the network breaks it, too."""
    network, points = Pseudo.draw(128, 3, [0, 1], torch.float64), partition(*circle(8), 4)
    rounds = math.ceil(100 / step)
    fixed = best_fixed(network, points, Loss(), Cap(RHO).widest, step * rounds, 60)
    regret, adversary = Regret(network, Loss(), fixed, step), adversary_of(network, RHO, AdversaryConfig())
    recorder = Recorder(network, points, Loss(), adversary, step, rounds, regret)
    federated(network, points, Loss(), adversary, FederatedConfig(rounds=rounds, step=step), recorder.watch)
    last = {name: recorder.curve(name)[-1] for name in recorder.records[-1]}
    assert (last["regret_over"] < 0).all() and (last["regret"] > 0).all()
    assert (last["regret_coupling"].abs() < 1e-9).all() and (last["regret_slopes"] == 0).all()
    assert (last["robust"] < recorder.curve("robust")[0]).all()
    assert not any(last[name].any() for name in ("gap", "gap_linear", "flips", "gradient_gap"))


def test_best_fixed_is_the_minimiser() -> None:
    """Its value is not improved by any direction, and comes from the start of a smaller promise."""
    network, points = Network.draw(256, 3, [0, 1], torch.float64), partition(*circle(8), 4)
    horizon = 300.0

    def promise(steps: int) -> Tensor:
        found = best_fixed(network, points, Loss(), Cap(RHO).widest, horizon, steps)
        return found.robust + found.distance.square() / (2 * horizon)

    few, many, most = promise(20), promise(300), promise(1200)
    assert (many <= few).all() and (many < 1).all()
    assert torch.allclose(many, most, rtol=0.03)


def test_records_at_the_start_are_the_start() -> None:
    network, points = Network.draw(512, 3, [0, 1], torch.float64), partition(*circle(8), 4)
    adversary = adversary_of(network, RHO, AdversaryConfig())
    recorder = Recorder(network, points, Loss(), adversary, 3.2, 2)
    federated(network, points, Loss(), adversary, replace(LONG, rounds=6), recorder.watch)
    first = recorder.records[0]
    for name in ("distance_max", "distance_f", "gap_linear", "flips", "gradient_gap", "round", "time"):
        assert first[name].tolist() == [0, 0]
    assert recorder.curve("round")[:, 0].tolist() == [0, 2, 4, 6]
    assert (recorder.curve("distance_f") <= recorder.curve("distance_max") + 1e-12).all()
    assert (recorder.curve("clean") <= recorder.curve("robust") + 1e-12).all()
    assert (recorder.curve("best") <= recorder.curve("robust")).all()
