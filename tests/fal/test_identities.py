"""What must come out exactly, in float64 (sheet, 1.5 and 6.1; SCAFFOLD, SFAT and CalFAT by their papers)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.weights import Weights
from fal import server
from fal.adversary.config import AttackConfig, Start
from fal.client import Global, Work, client_step
from fal.keys import Key
from fal.settings import Form, Refresh
from fal.trust import Aggregator, AggregatorConfig
from tests.fal.small import CLASSES, Quadratic, apart, federation, images, method, net, optimiser, trained

EXACT = 1e-12
CLEAN_START = AttackConfig(eps=0.1, steps=3, start=Start.none)
"""Does not depend on who draws."""


def by_hand(
    parts: list[Tensor], *, steps: int, rounds: int, rate: float = 0.3, eta: float = 1.0, eps: float = 0.1
) -> Any:
    """FAL written again, with `backward` and `torch.optim`: PGD of three steps from the clean points."""
    module, (x, y) = net(), images()
    for _ in range(rounds):
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        moved = {name: torch.zeros_like(p) for name, p in before.items()}
        for indices in parts:
            module.load_state_dict(before)
            optim = torch.optim.SGD(module.parameters(), rate)
            for _ in range(steps):
                own, worst = x[indices], x[indices]
                for _ in range(3 if eps else 0):
                    worst = worst.detach().requires_grad_()
                    F.cross_entropy(module(worst), y[indices], reduction="sum").backward()
                    worst = (worst + 2.5 * eps / 3 * worst.grad.sign()).clamp(own - eps, own + eps).clamp(0, 1)
                optim.zero_grad()
                F.cross_entropy(module(worst.detach()), y[indices]).backward()
                optim.step()
            for name, p in module.named_parameters():
                moved[name] += (p.detach() - before[name]) / len(parts)
        module.load_state_dict({name: before[name] + eta * moved[name] for name in before})
    return {name: p.detach() for name, p in module.named_parameters()}


def equal_parts(clients: int) -> list[Tensor]:
    return list(torch.arange(24).chunk(clients))


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_a_run_is_that_of_plain_torch(eta: float) -> None:
    ours = trained(federation("fal", attack=CLEAN_START, changed={"eta_global": eta}))
    assert apart(ours, by_hand(equal_parts(4), steps=3, rounds=3, eta=eta)) < EXACT


def test_a_server_step_of_1_is_fat() -> None:
    fal = trained(federation("fal", changed={"eta_global": 1.0}))
    assert apart(fal, trained(federation("fat"))) == 0
    assert apart(fal, trained(federation("fal", changed={"eta_global": 0.9}))) > 1e-3


def test_without_a_radius_it_is_fedavg() -> None:
    none = AttackConfig(eps=0.1, steps=3)
    none.eps, none.step_size = 0.0, 0.0
    expected = trained(federation("fedavg"))
    for name in ("fat", "fal", "sfat"):
        changed = {"alpha": 0.0} if name == "sfat" else {}
        assert apart(trained(federation(name, attack=none, changed=changed)), expected) < EXACT
    assert apart(trained(federation("fat", changed={"fraction": 0.0})), expected) < EXACT
    assert apart(expected, by_hand(equal_parts(4), steps=3, rounds=3, eps=0)) < EXACT


@pytest.mark.parametrize("clients", [2, 4, 8])
def test_with_one_local_step_neither_clients_nor_partition_matter(clients: int) -> None:
    alone = trained(federation("fal", 1, attack=CLEAN_START, local_steps=1))
    assert apart(trained(federation("fal", clients, attack=CLEAN_START, local_steps=1)), alone) < EXACT
    shuffled = list(torch.randperm(24).chunk(clients))
    by_label = list(images()[1].argsort(stable=True).chunk(clients))
    for parts in (shuffled, by_label):
        assert apart(trained(federation("fal", parts, attack=CLEAN_START, local_steps=1)), alone) < EXACT
        assert apart(trained(federation("fal", parts, attack=CLEAN_START, local_steps=3)), alone) > 1e-4


def test_unequal_clients_of_one_step_are_centralised_when_weighed_by_size() -> None:
    alone = trained(federation("fal", 1, attack=CLEAN_START, local_steps=1))
    parts = list(torch.arange(24).split([3, 5, 16]))
    assert apart(trained(federation("fal", parts, attack=CLEAN_START, local_steps=1, weights="size")), alone) < EXACT
    assert apart(trained(federation("fal", parts, attack=CLEAN_START, local_steps=1)), alone) > 1e-4


def test_one_client_is_centralised_training() -> None:
    ours = trained(federation("fal", 1, attack=CLEAN_START, local_steps=4))
    assert apart(ours, by_hand(equal_parts(1), steps=12, rounds=1)) < EXACT


def test_the_order_of_clients_does_not_matter() -> None:
    found = federation("sfat", 6)
    expected = trained(found)
    again = federation("sfat", 6)
    again.clients = [again.clients[place] for place in (3, 0, 5, 1, 4, 2)]
    again.chosen = lambda number: again.clients  # type: ignore[method-assign]
    assert apart(trained(again), expected) < EXACT


@pytest.mark.parametrize("name", ["fedavg", "fat", "fal", "calfat", "sfat", "mixed", "trades", "mart", "dbfat"])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "bn", "gn"])
def test_a_stack_is_the_loop(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {
        "kind": kind,
        "batch": 3,
        "local_steps": 3,
        "optimised": optimiser(lr=0.02, momentum=0.9),
    }
    loop = federation(name, 4, **settings, stack=False)
    trained(loop, 2)
    for size in (3, 4):  # 3 and one alone, all four
        monkeypatch.setattr("fal.network.chunk_of", lambda *_, tasks, size=size, **__: min(size, tasks))
        stacked = federation(name, 4, **settings)
        trained(stacked, 2)
        assert apart(stacked.server.weights, loop.server.weights) < EXACT
        assert not loop.server.buffers or apart(stacked.server.buffers, loop.server.buffers) < EXACT


def test_an_attack_on_batch_statistics_is_another_and_leaves_the_running_ones() -> None:
    def run(own: bool, stack: bool) -> Weights:
        changed = {"batch_statistics": own}
        found = federation("fat", 4, kind="bn", batch=3, changed=changed, stack=stack)
        trained(found)
        assert int(found.server.buffers["1.num_batches_tracked"]) == 9, "attack steps count no batches"
        return found.server.weights

    assert apart(run(True, False), run(True, True)) < EXACT
    assert apart(run(True, True), run(False, True)) > 1e-4


@pytest.mark.parametrize("name", ["fedprox", "scaffold", "fednova", "feddyn"])
def test_a_stack_is_the_loop_for_every_optimiser(name: str) -> None:
    loop = federation("fat", 4, optimised=optimiser(name), batch=3, stack=False)
    stacked = federation("fat", 4, optimised=optimiser(name), batch=3)
    assert apart(trained(stacked), trained(loop)) < EXACT
    assert apart(trained(federation("fat", 4, batch=3)), loop.server.weights) > 1e-6 or name == "fednova"


def test_attacking_once_a_round_is_the_same_for_one_step_and_not_for_more() -> None:
    def run(refresh: str, steps: int) -> Weights:
        return trained(federation("fal", changed={"refresh": Refresh(refresh)}, local_steps=steps))

    assert apart(run("round", 1), run("step", 1)) == 0
    assert 1e-6 < apart(run("round", 3), run("step", 3)) < 0.1


# ---- SFAT


def test_sfat_without_slack_is_fat() -> None:
    expected = trained(federation("fat"))
    for form in Form:
        assert apart(trained(federation("sfat", changed={"alpha": 0.0, "form": form})), expected) < EXACT
    assert apart(trained(federation("sfat")), expected) > 1e-4


@pytest.mark.parametrize(("flag", "total"), [(1.2, 0.963), (1.4, 0.931), (1.6, 0.903)])
def test_released_weights_of_five_clients_lose_what_was_measured(flag: float, total: float) -> None:
    settings = method("sfat", alpha=(flag - 1) / (flag + 1), form=Form.released)
    other = server.slack_shares([3.0, 1.0, 2.0, 4.0, 5.0], [1.0] * 5, settings, {"bn1.weight"})
    assert sum(other("conv.weight")) == pytest.approx(total, abs=5e-4)
    assert max(other("conv.weight")) == other("conv.weight")[1]
    assert sum(other("bn1.weight")) == pytest.approx(5 / (4 + flag)), "no entry of bn is favoured, and all shrink"
    first = server.slack_shares([1.0, 3.0, 2.0, 4.0, 5.0], [1.0] * 5, settings)
    assert sum(first("conv.weight")) == pytest.approx(1, abs=1e-15)
    published = server.slack_shares([3.0, 1.0, 2.0, 4.0, 5.0], [1.0] * 5, method("sfat", alpha=1 / 6), {"bn1.weight"})
    assert sum(published("bn1.weight")) == pytest.approx(1, abs=1e-15)
    assert published("w")[1] / published("w")[0] == pytest.approx(1.4)


def test_a_released_round_shrinks_all_weights() -> None:
    """sum_c s_c W_c, with shares s_c of sum s, from where a plain mean would be."""
    found = federation("sfat", 5, data=images(items=30), changed={"form": Form.released})
    trained(found, 1)
    before = found.server.weights
    updates = found.collected({c.number: found.work(c, 2) for c in found.clients}, 2).updates  # type: ignore[misc]
    shares = server.slack_shares([u.adversarial_loss for u in updates.values()], [1.0] * 5, found.method)("")
    expected = {
        name: sum(s * (w + u.delta[name]) for s, u in zip(shares, updates.values(), strict=True))
        for name, w in before.items()
    }
    found.round(2)
    assert apart(found.server.weights, expected) < EXACT


def test_a_released_round_favours_nobody_in_batch_norm() -> None:
    """Of its entries each client counts the same, of the others the favoured one more."""
    changed = {"form": Form.released, "alpha": 0.5}
    found = federation("sfat", 5, data=images(2, 30), kind="bn", changed=changed)
    trained(found, 1)
    before = found.server.weights
    updates = found.collected({c.number: found.work(c, 2) for c in found.clients}, 2).updates  # type: ignore[misc]
    found.round(2)
    assert min(updates, key=lambda client: updates[client].adversarial_loss) != 0
    assert found.local.network.batch_norm == {"1.weight", "1.bias"}
    for name, w in before.items():
        whole = sum(w + update.delta[name] for update in updates.values())
        apart = float((found.server.weights[name] - whole / (4 + 3)).abs().max())
        assert (apart < EXACT) == (name in found.local.network.batch_norm), name


def test_the_adversarial_loss_is_summed_over_the_last_epoch() -> None:
    found = federation("fat", 4, batch=2, local_steps=7)  # 3 batches an epoch
    work = found.work(found.clients[0], 1)
    assert work is not None and work.last_epoch == 3
    (update,) = client_step(found.local, found.optimiser, found.images, Global(found.server.weights), [work])
    sums = []
    for steps in (4, 5, 6, 7):
        one = Work(work.key, work.batches[:steps], work.log_counts, 1)
        sums += client_step(found.local, found.optimiser, found.images, Global(found.server.weights), [one])
    assert update.adversarial_loss == pytest.approx(sum(each.adversarial_loss for each in sums[1:]), abs=EXACT)


# ---- CalFAT


class Scaled(nn.Module):
    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.module(x)


def test_calfat_of_equal_counts_is_fat_on_the_same_scale_of_logits() -> None:
    expected = trained(federation("fat", module=Scaled(net(), 10.0), optimised=optimiser(lr=0.01)))
    ours = trained(federation("calfat", module=Scaled(net(), 1.0), optimised=optimiser(lr=0.01)))
    assert apart(ours, expected) < EXACT
    skewed = list(images()[1].argsort(stable=True).chunk(4))
    ours = trained(federation("calfat", skewed, module=Scaled(net(), 1.0), optimised=optimiser(lr=0.01)))
    assert (
        apart(ours, trained(federation("fat", skewed, module=Scaled(net(), 10.0), optimised=optimiser(lr=0.01)))) > 1e-4
    )


def test_the_log_prior_is_at_weight_1() -> None:
    found = federation("calfat", list(torch.arange(24).split([1, 4, 19])))
    assert found.clients[0].log_counts.exp().tolist() == [1, 1, 1], "absent classes count as 1"
    assert found.clients[1].log_counts.exp().tolist() == pytest.approx([1, 2, 1])
    from fal.objective import calibrated

    logits = torch.randn(4, CLASSES, dtype=torch.float64)
    expected = 10 * (logits + 0.1 * torch.tensor([2.0, 5.0, 1.0]).log())
    torch.testing.assert_close(calibrated(logits, 10.0, torch.tensor([2.0, 5.0, 1.0]).log()), expected)


# ---- SCAFFOLD


def test_scaffold_of_one_step_from_zero_variates_is_fedavg() -> None:
    first = trained(federation("fat", optimised=optimiser("scaffold"), local_steps=1), 1)
    assert apart(first, trained(federation("fat", local_steps=1), 1)) < EXACT


def test_scaffolds_server_variate_moves_by_the_difference_of_the_clients() -> None:
    """Two clients, one weight, loss |w - a|^2 / 2 each with a = 1 and a = -3, K = 2, rate 1/2, worked out by hand.

    Round 1 from w = 0, c = c_i = 0:   client 1: 0, 1/2, 3/4;   client 2: 0, -3/2, -9/4
        c_1 = (0 - 3/4) / (2 / 2) = -3/4;   c_2 = 9/4;   c = (-3/4 + 9/4) / 2 = 3/4;   w = (3/4 - 9/4) / 2 = -3/4
    Round 2 from w = -3/4: gradient w - a + c - c_i
        client 1: c - c_1 = 3/2:  -3/4 - (-7/4 + 3/2) / 2 = -5/8;   -5/8 - (-13/8 + 3/2) / 2 = -9/16
        client 2: c - c_2 = -3/2: -3/4 - (9/4 - 3/2) / 2 = -9/8;    -9/8 - (15/8 - 3/2) / 2 = -21/16
        c_1 = -3/4 - 3/4 + (-3/4 + 9/16) = -27/16;   c_2 = 9/4 - 3/4 + (-3/4 + 21/16) = 33/16
        c = 3/4 + ((-27/16 + 3/4) + (33/16 - 9/4)) / 2 = 3/16;   w = -15/16
    """
    data = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 1])
    rule = optimiser("scaffold", lr=0.5)
    found = federation("fat", 2, data=data, module=nn.Linear(1, 1).double(), optimised=rule, local_steps=2)
    Quadratic(found, [1.0, -3.0])
    for number, (w, c, c_1, c_2) in enumerate(
        [(-3 / 4, 3 / 4, -3 / 4, 9 / 4), (-15 / 16, 3 / 16, -27 / 16, 33 / 16)], 1
    ):
        found.round(number)
        values = (found.server.weights, found.server.variate, found.states.variates[0], found.states.variates[1])
        assert [float(each["w"]) for each in values] == pytest.approx([w, c, c_1, c_2], abs=EXACT)


# ---- rules


def test_a_mean_of_which_nothing_is_trimmed_is_a_mean() -> None:
    expected = trained(federation("fat"))
    none = AggregatorConfig(Aggregator.trimmed_mean, trimmed=0)
    assert apart(trained(federation("fat", aggregator=none)), expected) < EXACT
    far = AggregatorConfig(Aggregator.clipping, norm=1e9)
    assert apart(trained(federation("fat", aggregator=far)), expected) < EXACT


def test_fednova_of_equal_steps_is_fedavg() -> None:
    for momentum in (0.0, 0.9):
        nova = trained(federation("fat", optimised=optimiser("fednova", momentum=momentum)))
        assert apart(nova, trained(federation("fat", optimised=optimiser(momentum=momentum)))) < EXACT


def test_what_is_drawn_depends_on_seed_round_client_and_step_alone() -> None:
    draw = Key(1, 2, 3).uniform(4, "start 0", (5,))
    assert torch.equal(draw, Key(1, 2, 3).uniform(4, "start 0", (5,)))
    others = [Key(0, 2, 3), Key(1, 0, 3), Key(1, 2, 0)]
    assert not any(torch.equal(draw, key.uniform(4, "start 0", (5,))) for key in others)
    assert not torch.equal(draw, Key(1, 2, 3).uniform(5, "start 0", (5,)))
    found, before = federation("fat", batch=3, participation=0.5, dropouts=0.1), torch.get_rng_state()
    trained(found, 1)
    assert torch.equal(before, torch.get_rng_state()), "no global generator is used"
