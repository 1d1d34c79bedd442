"""Losses against formulas written again, what of a batch is attacked, and keys that a method does not read."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError
from fal import objective
from fal.adversary.config import AttackConfig, Loss, Start
from fal.methods import Batch, Local
from fal.network import Network
from fal.settings import MethodConfig, Objective, Optimiser, OptimiserConfig, Refresh
from tests.fal.small import ATTACK, CLASSES, METHODS, images, method, net


def logits(seed: int) -> Tensor:
    return torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = torch.tensor([0, 1, 2, 1, 0])


def test_losses_are_their_formulas() -> None:
    natural, worst = logits(0), logits(1)
    p, q = natural.softmax(1), worst.softmax(1)
    own = q[torch.arange(5), Y]
    kl = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(objective.divergence(natural, worst), kl)
    expected = F.cross_entropy(natural, Y, reduction="none") + 6 * kl
    torch.testing.assert_close(objective.trades(natural, worst, Y, 6.0), expected)
    others = q.masked_fill(F.one_hot(Y, CLASSES).bool(), 0).amax(1)
    expected = -own.log() - (1 - others).log() + 5 * kl * (1 - p[torch.arange(5), Y])
    torch.testing.assert_close(objective.mart(natural, worst, Y, 5.0), expected)


def test_dbfat_weighs_items_by_how_near_the_boundary_they_are() -> None:
    natural, worst, whole = logits(0), logits(1), logits(2)
    q = worst.softmax(1)
    margin = q[torch.arange(5), Y] - q.masked_fill(F.one_hot(Y, CLASSES).bool(), 0).amax(1)
    weights = objective.boundary_weights(worst, Y)
    assert weights.mean() == pytest.approx(1) and (weights.argsort(descending=True) == margin.argsort()).all()
    torch.testing.assert_close(weights[0] / weights[1], (margin[1] - margin[0]).exp())
    kl = objective.divergence(natural, worst), objective.divergence(whole, worst)
    expected = weights * F.cross_entropy(worst, Y, reduction="none") + 1.5 * kl[0] + 0.5 * kl[1]
    torch.testing.assert_close(objective.dbfat(natural, worst, whole, Y, 1.5, 0.5), expected)


def batch(count: int = 6) -> Batch:
    x, y = images()

    def draws(restart: int, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(restart), dtype=torch.float64)

    return Batch(x[:count], y[:count], torch.zeros(CLASSES, dtype=torch.float64), draws)


def local(name: str, attack: AttackConfig = ATTACK, **changed: Any) -> tuple[Local, dict[str, Tensor]]:
    network = Network(net())
    return Local(network, method(name, **changed), attack), network.start()[0]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.5, 3), (1.0, 6)])
def test_a_share_of_the_batch_is_attacked(fraction: float, count: int) -> None:
    found, weights = local("fat", fraction=fraction)
    moved = (found.attacked(weights, batch()) - batch().x).flatten(1).abs().amax(1)
    assert (moved > 0).tolist() == [True] * count + [False] * (6 - count)
    assert float(moved.max()) <= 0.1 + 1e-12


def test_clean_training_attacks_nothing_and_an_attack_asks_for_no_weights() -> None:
    found, weights = local("fedavg")
    given = batch()
    assert found.attacked(weights, given) is given.x
    found, weights = local("fat")
    leaves = {name: w.requires_grad_() for name, w in weights.items()}
    worst = found.attacked(leaves, batch())
    assert not worst.requires_grad and all(w.grad is None for w in leaves.values())


@pytest.mark.parametrize("loss", ["ce", "cw", "dlr", "kl"])
def test_an_attack_raises_the_loss(loss: str) -> None:
    attack = AttackConfig(eps=0.1, steps=5, loss=Loss(loss), start=Start.normal)
    found, weights = local("calfat" if loss == "kl" else "fat", attack=attack)
    given = batch(24)
    worst = found.attacked(weights, given)
    if loss == "kl":
        natural, attacked = (found.logits(weights, x, given) for x in (given.x, worst))
        assert float(objective.divergence(natural, attacked).mean()) > 1e-3
    else:
        assert found.loss(weights, given, worst).mean() > found.loss(weights, given, given.x).mean() + 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_a_programs_gradient_is_that_of_the_mean_loss(name: str) -> None:
    found, weights = local(name)
    given = batch()
    worst = found.attacked(weights, given)
    gradients, items = found.differentiated(weights, given, worst)
    leaves = {key: w.clone().requires_grad_() for key, w in weights.items()}
    expected = found.loss(leaves, given, worst)
    torch.testing.assert_close(items, expected.detach(), rtol=0, atol=1e-14)
    by_hand = torch.autograd.grad(expected.mean(), list(leaves.values()))
    torch.testing.assert_close(gradients, list(by_hand), rtol=0, atol=1e-14)


def test_what_a_mixed_loss_mixes() -> None:
    (clean, weights), (adversarial, _), (mixed, _) = local("fedavg"), local("fat"), local("mixed")
    given = batch()
    worst = adversarial.attacked(weights, given)
    expected = (clean.loss(weights, given, given.x) + adversarial.loss(weights, given, worst)) / 2
    torch.testing.assert_close(mixed.loss(weights, given, worst), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.2}, "method.alpha=0.2 with method.slack=false .method=fal., which does not read it; use null"),
        ({"objective": Objective.clean, "fraction": 0.5}, "method.fraction=0.5 with method.objective=clean"),
        ({"objective": Objective.calibrated}, "method.scale=null with method.objective=calibrated .*needs it"),
        ({"slack": True}, "method.alpha=null with method.slack=true"),
        ({"fraction": 1.5}, "method.fraction=1.5: it is a share; use 0 to 1"),
        ({"eta_global": 0.0}, "method.eta_global=0: use a number above 0"),
        ({"eta_global": float("nan")}, "method.eta_global=nan: use a number above 0"),
        ({"able": 0.5}, "method.able=0.5 with method.objective=adversarial"),
        ({"objective": Objective.free}, "method.replays=null with method.objective=free"),
        ({"objective": Objective.free, "replays": 0}, "method.replays=0: use 1 step or more"),
        ({"objective": Objective.clean, "early_exit": True}, "method.early_exit=true with method.objective=clean"),
        ({"batch_statistics": True, "early_exit": True}, "method.early_exit=true with .*batch_statistics=true"),
        ({"objective": Objective.free, "replays": 2, "refresh": Refresh.round}, "free with method.refresh=round"),
        ({"objective": Objective.trades, "beta": -1.0}, "method.beta=-1: use a number above 0"),
    ],
)
def test_a_key_that_another_method_owns_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MethodConfig(**settings)


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (1.4, r"method.alpha=1.4: the paper's alpha lies in \(0, 1\).*a flag 1.4 of the released code is alpha=0.1667"),
        (-0.1, "method.alpha=-0.1: the paper's alpha lies in"),
    ],
)
def test_the_flag_of_the_released_code_is_no_alpha(alpha: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        method("sfat", alpha=alpha)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": Optimiser.scaffold, "momentum": 0.9}, "optimiser=scaffold with optimiser.momentum=0.9.*momentum=0"),
        ({"mu": 0.1}, "optimiser.mu=0.1 with optimiser=fedavg: fedprox and feddyn need it, no other reads it"),
        ({"name": Optimiser.fedprox}, "optimiser.mu=None with optimiser=fedprox"),
        ({"lr": 0.0}, "optimiser.lr=0: use a number above 0"),
        ({"name": Optimiser.feddyn, "mu": 0.0}, "optimiser.mu=0 with optimiser=feddyn, whose server divides by it"),
        ({"name": Optimiser.fedprox, "mu": -1.0}, "optimiser.mu=-1: use 0 .plain FedAvg. or more"),
    ],
)
def test_impossible_optimisers_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimiserConfig(**settings)
