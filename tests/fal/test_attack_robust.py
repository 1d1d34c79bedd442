"""Attacks at test time, and the checks of what they say."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from fal.adversary.autoattack import autoattacked
from fal.adversary.balls import Linf
from fal.adversary.config import AttackConfig, Kind, Loss, Norm, Start
from fal.adversary.robust import aa_lite, attacked, evaluating, is_right, worst_of
from fal.sanity import sanity
from tests.fal.pictures import CLASSES, draws_of, learnt, pictures

CONFIG = AttackConfig(eps=0.08, steps=10)


def test_modes_are_put_back_module_by_module_and_statistics_stay() -> None:
    network = copy.deepcopy(learnt()).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    x, y = pictures(30, seed=1)
    found = attacked(network, x, y, CONFIG, draws_of(x))
    assert torch.equal(found, attacked(learnt(), x, y, CONFIG, draws_of(x))), "attacked in another mode"
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(RuntimeError), evaluating(network):
        raise RuntimeError
    assert [module.training for module in network.modules()] == modes


def test_radius_0_is_natural_accuracy_exactly() -> None:
    x, y = pictures(200, seed=2)
    assert torch.equal(attacked(learnt(), x, y, CONFIG, draws_of(x), ball=Linf(0.0)), x)


def test_the_worst_of_several_is_below_each_of_them() -> None:
    x, y = pictures(150, seed=3)
    attacks = aa_lite(Norm.linf, 0.06, steps=10)
    together = is_right(learnt(), worst_of(learnt(), x, y, attacks, draws_of(x)), y)
    assert 0.05 < together.double().mean() < 0.95
    for config in (*attacks, AttackConfig(eps=0.06, steps=10)):
        alone = is_right(learnt(), attacked(learnt(), x, y, config, draws_of(x)), y)
        assert together.sum() <= alone.sum()
    moved = worst_of(learnt(), x, y, attacks, draws_of(x)) - x
    assert moved.abs().max() <= 0.06 + 1e-6 and not moved[~is_right(learnt(), x, y)].any()


class Flat(nn.Module):
    """Class 0, unless 9 x 9 pixels are by 0.1 brighter than the grey that all images are: flat ground up to there."""

    def forward(self, x: Tensor) -> Tensor:
        other = 50 * (F.avg_pool2d(x, 9, 1) - 0.35).relu().amax((1, 2, 3))
        return torch.stack([torch.ones_like(other), other, *other.new_tensor([0.0, -1, -2]).expand(len(x), 3).T], 1)


def test_in_l2_patches_leave_the_flat_ground_around_images() -> None:
    """A gradient that is 0 all around an image leads nowhere, from other starts as little as from there."""
    x, y, network = torch.full((30, 1, 28, 28), 0.25), torch.zeros(30, dtype=torch.long), Flat()
    lite = aa_lite(Norm.l2, 1.5, steps=10, classes=5)
    assert is_right(network, worst_of(network, x, y, lite[:2], draws_of(x)), y).all()
    blocks = AttackConfig(Kind.apgd, Norm.l2, 1.5, 10, restarts=10, loss=Loss.cw, start=Start.blocks)
    assert is_right(network, worst_of(network, x, y, [blocks], draws_of(x)), y).all()
    points = worst_of(network, x, y, lite, draws_of(x))
    assert not is_right(network, points, y).any()
    assert (points - x).flatten(1).norm(dim=1).max() <= 1.5 + 1e-6


def test_what_is_found_of_an_image_is_of_its_own_numbers_whatever_else_is_attacked() -> None:
    x, y = pictures(60, seed=7)
    lite = aa_lite(Norm.l2, 0.3, steps=10)
    points = worst_of(learnt(), x, y, lite, draws_of(x))
    assert 0 < is_right(learnt(), points, y).double().mean() < 0.9
    some = torch.arange(60).flip(0)[::3]
    alone = worst_of(learnt(), x[some], y[some], lite, lambda restart: draws_of(x)(restart)[some])
    torch.testing.assert_close(alone, points[some], rtol=0, atol=1e-5)


def test_targets_are_the_likeliest_other_classes_in_turn() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).requires_grad_(False)
    network[1].bias.copy_(torch.tensor([9.0, 5, 7, 3, 1]))
    x, y = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    direction = 0.01 * torch.randn(64)

    def config(restarts: int) -> AttackConfig:
        how = {"restarts": restarts, "loss": Loss.targeted_dlr, "start": Start.none}
        return AttackConfig(eps=0.1, steps=20, step_size=0.1, **how)

    for restarts, aim in ((1, 2), (2, 1), (3, 3)):  # nothing is fooled, so the last restart's point is what is left
        network[1].weight.zero_()[aim] = direction
        found = attacked(network, x, y, config(restarts), draws_of(x))
        torch.testing.assert_close(found - x, 0.1 * direction.sign().view_as(x))
    with pytest.raises(UserError, match="attack.restarts=5 with attack.loss=targeted_dlr and 5 classes: there are 4"):
        attacked(network, x, y, config(5), draws_of(x))


@pytest.mark.parametrize("low, high", [(-2.0, 2.0), (0.0, 255.0)])
def test_pixels_outside_the_box_are_refused(low: float, high: float) -> None:
    x = torch.linspace(low, high, 64).view(1, 1, 8, 8)
    with pytest.raises(UserError, match=f"pixels from {low:.3g} to {high:.3g}.*take the normalisation out of the data"):
        attacked(learnt(), x, torch.tensor([0]), CONFIG, draws_of(x))


def test_a_loss_for_training_is_refused() -> None:
    x, y = pictures(1, seed=4)
    with pytest.raises(UserError, match="attack.loss=kl at test time"):
        attacked(learnt(), x, y, AttackConfig(loss=Loss.kl), draws_of(x))


def test_autoattack_that_is_missing_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    x, y = pictures(1, seed=4)
    with pytest.raises(UserError, match=r"pip install -e '.\[aa\]'"):
        autoattacked(learnt(), x, y, norm=Norm.linf, eps=0.1)


class Changed(nn.Module):
    """A network behind something that is done to its images, or to its logits."""

    def __init__(self, before=lambda x: x, after=lambda logits: logits) -> None:
        super().__init__()
        self.network, self.before, self.after = learnt(), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


def test_a_plain_network_passes_all_checks() -> None:
    x, y = pictures(200, seed=5)
    found = sanity(learnt(), x, y, CONFIG, draws_of(x), surrogate=Changed(lambda x: x.roll(1, -1)))
    assert found.failures == []
    assert set(found.accuracies) >= {"natural", "eps = 0", "noise", "fgsm", "attack", "transfer"}
    assert found.accuracies["natural"] == found.accuracies["eps = 0"] > 0.9 > found.accuracies["attack"]


def staircase(x: Tensor) -> Tensor:
    """Ten grey levels, whose slope is nearly 0 and points the wrong way."""
    return (10 * x).round().detach() / 10 - 1e-6 * (x - x.detach())


def holes(x: Tensor) -> Tensor:
    """No slope at all, and a third of all images, spread like dust, are moved by a row."""
    moved = ((1000 * x.sum((1, 2, 3))).long() % 3 == 0).view(-1, 1, 1, 1)
    return torch.where(moved, x.roll(1, -2), x).detach() + 0 * x


def reversed_off(clean: Tensor) -> Callable[[Tensor], Tensor]:
    """Nothing, but with a slope that points the wrong way everywhere but at clean images."""

    def before(x: Tensor) -> Tensor:
        known = (x[:, None] == clean).flatten(2).all(2).any(1).view(-1, 1, 1, 1)
        return x.detach() + torch.where(known, 1, -1) * (x - x.detach())

    return before


@pytest.mark.parametrize(
    "network, said",
    [
        (Changed(staircase), ["eps = 0.5 leaves", "any image can be grey"]),
        (Changed(staircase), ["transfer", "another network's gradients lead further"]),
        (Changed(reversed_off(pictures(200, seed=6)[0])), ["fgsm", "one step finds more than many"]),
        (Changed(holes), ["noise", "that chance finds"]),
        (Changed(lambda x: x + 0.3 * torch.rand_like(x)), ["eps = 0 leaves", "may draw random numbers"]),
        (
            Changed(after=lambda logits: logits * torch.tensor([0, 0, 0, 0, 0.0]) + torch.eye(5)[2]),
            ["one class always"],
        ),
    ],
    ids=["hidden", "transfer", "fgsm", "noise", "random", "constant"],
)
def test_what_cannot_be_is_named(network: nn.Module, said: list[str]) -> None:
    x, y = pictures(200, seed=6)
    failures = sanity(network, x, y, CONFIG, draws_of(x), surrogate=learnt()).failures
    assert any(all(words in failure for words in said) for failure in failures), failures
