"""FedDynAT, FedRBN, free training and early exit: by hand, against plain torch, and a stack against the loop."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fal.adversary.config import AttackConfig, Kind, Loss, Start
from fal.client import Global, client_step
from fal.federation import Federation
from fal.methods import spread_out
from fal.network import ATTACKED
from fal.settings import FederationConfig
from fal.trust import Aggregator, AggregatorConfig
from tests.fal.small import Quadratic, apart, federation, images, net, optimiser, trained

EXACT = 1e-12
ONE_STEP = AttackConfig(Kind.fgsm, eps=0.1, steps=1, start=Start.none)


def same_in_a_stack(name: str, rounds: int = 2, **settings: Any) -> Federation:
    """All clients at once do what they do one by one."""
    loop, stacked = (federation(name, 4, batch=3, stack=stack, **settings) for stack in (False, True))
    stacked.chunk = lambda work, clients: clients  # type: ignore[method-assign]
    trained(loop, rounds)
    trained(stacked, rounds)
    assert apart(stacked.server.weights, loop.server.weights) < EXACT
    assert not loop.server.buffers or apart(stacked.server.buffers, loop.server.buffers) < EXACT
    return stacked


@pytest.mark.parametrize("name", ["dbfat", "fedrbn", "free"])
@pytest.mark.parametrize(
    ("rule", "aggregator"),
    [
        ("scaffold", AggregatorConfig(Aggregator.median)),
        ("feddyn", AggregatorConfig(Aggregator.krum, byzantine=0)),
        ("fednova", AggregatorConfig(Aggregator.trimmed_mean, trimmed=1)),
        ("fedprox", AggregatorConfig(Aggregator.geometric_median, iterations=5)),
    ],
)
def test_any_method_goes_with_any_optimiser_and_rule(name: str, rule: str, aggregator: AggregatorConfig) -> None:
    attack = ONE_STEP if name == "free" else AttackConfig(eps=0.1, steps=3)
    found = same_in_a_stack(name, kind="bn", attack=attack, optimised=optimiser(rule, lr=0.05), aggregator=aggregator)
    assert all(w.isfinite().all() for w in found.server.weights.values())


# ---- FedDynAT


def test_feddyn_of_two_clients_is_as_worked_out_by_hand() -> None:
    """One weight, loss |w - a|^2 / 2 each with a = 1 and a = -3, K = 2, rate 1/2, mu = 1.

    Round 1 from w = 0, g_i = h = 0: gradient w - a + (w - 0)
        client 1: 0, 1/2, 1/2: g_1 = -1/2;   client 2: 0, -3/2, -3/2: g_2 = 3/2
        h = (-1/2 + 3/2) / 2 = 1/2;   w = (1/2 - 3/2) / 2 - 1/2 = -1
    Round 2 from w = -1: gradient w - a + (w + 1) - g_i
        client 1: -1, -1/4, -1/4: g_1 = -1/2 - 3/4 = -5/4;   client 2: -1, -5/4, -5/4: g_2 = 3/2 + 1/4 = 7/4
        h = 1/2 + (-3/4 + 1/4) / 2 = 1/4;   w = (-1/4 - 5/4) / 2 - 1/4 = -1, where the sum of both losses is smallest
    """
    data = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 1])
    rule = optimiser("feddyn", lr=0.5, mu=1.0)
    found = federation("fat", 2, data=data, module=nn.Linear(1, 1).double(), optimised=rule, local_steps=2)
    Quadratic(found, [1.0, -3.0])
    for number, expected in enumerate([(-1, 1 / 2, -1 / 2, 3 / 2), (-1, 1 / 4, -5 / 4, 7 / 4)], 1):
        found.round(number)
        values = (found.server.weights, found.server.variate, found.states.variates[0], found.states.variates[1])
        assert [float(each["w"]) for each in values] == pytest.approx(expected, abs=EXACT)


def test_feddyn_of_clients_that_are_left_out_keeps_their_states() -> None:
    found = federation("fat", 4, optimised=optimiser("feddyn"), participation=0.5)
    trained(found, 1)
    chosen = {client.number for client in found.chosen(1)}
    assert {c for c, variate in found.states.variates.items() if any(w.any() for w in variate.values())} == chosen
    mean = {name: sum(v[name] for v in found.states.variates.values()) / 4 for name in found.server.weights}
    assert apart(found.server.variate, mean) < EXACT, "h is the mean of all gradients"
    assert found.round(2).metrics["bytes"] == federation("fat", 4, participation=0.5).round(2).metrics["bytes"]


def test_local_work_falls_in_steps_and_is_named() -> None:
    config = FederationConfig(local_steps=12, anneal=0.5, anneal_every=2)
    assert [config.steps(5, number) for number in range(1, 12)] == [12, 12, 6, 6, 3, 3, 2, 2, 1, 1, 1]
    assert FederationConfig(local_epochs=2.0, anneal=0.5, anneal_every=1).steps(5, 2) == 5
    found = federation("fat", 4, batch=2, local_steps=4, anneal=0.5, anneal_every=1)
    steps = [len(work.batches) for number in (1, 2, 3) if (work := found.work(found.clients[0], number))]
    assert steps == [4, 2, 1] and "falling local work" in found.config.extensions(found.optimiser)


# ---- FedRBN


def test_statistics_of_attacked_points_are_those_of_the_able_clients() -> None:
    found = federation("fedrbn", 4, kind="bn", batch=3)
    assert len(found.able) == 2 and found.able == federation("fedrbn", 4, kind="bn", batch=3).able
    start, own = Global(*found.server.state), "1.running_mean"
    updates = {}
    for client in found.clients:
        work = found.work(client, 1)
        assert work is not None and work.attacks == (client.number in found.able)
        (updates[client.number],) = client_step(found.local, found.optimiser, found.images, start, [work])
    found.round(1)
    for name, clients in ((own, range(4)), (ATTACKED + own, found.able)):
        mean = torch.stack([updates[client].buffers[name] for client in clients]).mean(0)
        assert float((found.server.buffers[name] - mean).abs().max()) < EXACT, name
    other = next(iter(set(range(4)) - found.able))
    assert torch.equal(updates[other].buffers[ATTACKED + own], start.buffers[ATTACKED + own])
    assert updates[other].gradients == updates[other].steps == 3
    assert {updates[client].gradients for client in found.able} == {3 * (1 + 3)}
    predicts = found.local.network.module(*found.server.state).state_dict()
    assert torch.equal(predicts[own], found.server.buffers[ATTACKED + own])


def test_statistics_are_the_same_where_updates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    added = same_in_a_stack("fedrbn", kind="bn")
    monkeypatch.setattr("fal.federation.Federation.streams", False)
    kept = federation("fedrbn", 4, kind="bn", batch=3)
    trained(kept, 2)
    assert apart(added.server.buffers, kept.server.buffers) < EXACT
    assert apart(added.server.weights, kept.server.weights) < EXACT


def test_without_batch_norm_and_with_all_clients_able_fedrbn_is_mixed() -> None:
    assert apart(trained(federation("fedrbn", changed={"able": 1.0})), trained(federation("mixed"))) == 0
    none = trained(federation("fedrbn", 4, changed={"able": 0.01}))  # one is
    assert apart(none, trained(federation("fedavg", 4))) > 1e-6


# ---- free training


def free_by_hand(batches: list[Tensor], rate: float, momentum: float) -> dict[str, Tensor]:
    """With `backward` and `torch.optim`."""
    module, (x, y) = net(), images()
    optim, moved = torch.optim.SGD(module.parameters(), rate, momentum), torch.zeros(3, 1, 6, 6, dtype=x.dtype)
    for batch in batches:
        points = (x[batch] + moved).clamp(0, 1).requires_grad_()
        optim.zero_grad()
        F.cross_entropy(module(points), y[batch]).backward()
        assert points.grad is not None
        moved = (moved + 0.1 * points.grad.sign()).clamp(-0.1, 0.1)
        optim.step()
    return {name: p.detach() for name, p in module.named_parameters()}


def test_free_training_is_that_of_plain_torch() -> None:
    found = federation("free", 1, attack=ONE_STEP, batch=3, local_steps=5, optimised=optimiser(momentum=0.9))
    work = found.work(found.clients[0], 1)
    assert work is not None
    assert [torch.equal(a, b) for a, b in zip(work.batches, work.batches[1:], strict=False)] == [True, False] * 2
    expected = free_by_hand(list(work.batches), 0.3, 0.9)
    assert apart(trained(found, 1), expected) < EXACT
    assert apart(expected, trained(federation("fedavg", 1, batch=3, local_steps=5), 1)) > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["mlp", "bn"])
def test_free_training_in_a_stack_is_the_loop_and_takes_one_gradient_a_step(kind: str, norm: str) -> None:
    attack = AttackConfig(Kind.fgsm, ONE_STEP.norm.__class__(norm), eps=0.1, steps=1, start=Start.none)
    found = same_in_a_stack("free", kind=kind, attack=attack, local_steps=4)
    assert found.round(3).metrics["gradients"] == 4
    assert federation("fat", 4, local_steps=4).round(1).metrics["gradients"] == 4 * (1 + 3)
    assert federation("fedavg", 4, local_steps=4).round(1).metrics["gradients"] == 4


# ---- early exit


@pytest.mark.parametrize("loss", ["ce", "kl"])
@pytest.mark.parametrize(("name", "kind"), [("fat", "mlp"), ("fat", "bn"), ("calfat", "gn"), ("trades", "cnn")])
def test_items_that_leave_an_attack_leave_a_stack_as_they_leave_the_loop(name: str, kind: str, loss: str) -> None:
    attack = AttackConfig(eps=0.1, steps=3, loss=Loss(loss), restarts=2)
    early = same_in_a_stack(name, kind=kind, attack=attack, changed={"early_exit": True}, optimised=optimiser(lr=0.02))
    late = federation(name, 4, kind=kind, attack=attack, batch=3, optimised=optimiser(lr=0.02))
    assert apart(early.server.weights, trained(late, 2)) > 1e-9, "some have left"


@pytest.mark.parametrize("stack", [False, True])
def test_where_no_item_leaves_nothing_changes(stack: bool) -> None:
    module, (x, _) = net(), images()
    data = x, module(x).argmax(1)  # all are right, and stay so
    attack = AttackConfig(eps=1e-5, steps=3)

    def run(early: bool) -> Federation:
        changed = {"early_exit": early}
        return federation("fat", module=module, data=data, attack=attack, changed=changed, local_steps=1, stack=stack)

    assert apart(trained(run(True), 1), trained(run(False), 1)) < EXACT


def test_items_that_are_misclassified_are_not_attacked() -> None:
    module, (x, _) = net(), images()
    wrong = (module(x).argmax(1) + 1) % 3
    found = federation("fat", module=module, data=(x, wrong), changed={"early_exit": True}, local_steps=1)
    plain = federation("fedavg", module=module, data=(x, wrong), local_steps=1)
    assert apart(trained(found, 1), trained(plain, 1)) < EXACT


def test_items_of_few_clients_stand_in_rows() -> None:
    points, whose = torch.arange(1.0, 6.0)[:, None], torch.tensor([0, 0, 2, 2, 2])
    spread, places = spread_out(points, whose, 4)
    assert spread[..., 0].tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [0, 0, 0]]
    assert torch.equal(spread[places], points)
