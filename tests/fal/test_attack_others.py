"""Ours beside torchattacks, foolbox and AutoAttack, on networks trained on Fashion-MNIST.

    pip install --no-deps torchattacks==3.5.1 foolbox==3.3.4 eagerpy GitPython gitdb smmap 'pyautoattack>=0.2,<0.3'

in an environment of their own: none of them is locked.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.data.dataroot import find
from fal.adversary.autoattack import autoattacked
from fal.adversary.balls import ball_of
from fal.adversary.config import AttackConfig, Kind, Loss, Norm, Start
from fal.adversary.gains import Classifier, cross_entropy_gain
from fal.adversary.robust import aa_lite, attacked, is_right, worst_of
from fal.attack import attack
from fal.images import idx
from fal.images.config import FILES
from tests.fal.pictures import draws_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
EPS = 0.1
WHY = "a test-only cross-check: pip install --no-deps {}, see the head of this file"


def fashion(root: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first images and labels of a split."""
    images, labels = (find(str(root), name, "") for name in FILES["fashion_mnist"][split])
    found = idx.read(images, labels, classes=10).at(range(count)).images(10, split)
    return found.x, found.y


@cache
def trained(root: Path, adversarial: bool) -> nn.Module:
    """Two convolutions and a linear layer, trained with PGD-4 or without."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(784, 10))
    images, labels = fashion(root, "train", 8000)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    config = AttackConfig(eps=EPS, steps=4, step_size=EPS / 3)
    for step in range(800):
        some = torch.randint(8000, (64,))
        x, y = images[some], labels[some]
        if adversarial:
            x = attack(Classifier(network, y, cross_entropy_gain), x, ball_of(config), config, draws_of(x, step))
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def test_images(data_root: Path) -> tuple[Tensor, Tensor]:
    return fashion(data_root, "test", 2000)


def robust(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """In percent."""
    return 100 * is_right(network, x, y).double().mean().item()


def test_a_network_trained_without_attacks_has_nothing_left(
    data_root: Path, test_images: tuple[Tensor, Tensor]
) -> None:
    x, y = test_images
    network = trained(data_root, False)
    assert robust(network, x, y) > 80
    assert robust(network, attacked(network, x, y, AttackConfig(eps=EPS, steps=20), draws_of(x)), y) < 2


PGD = {"steps": 20, "step_size": EPS / 4}
CASES = {
    "pgd": AttackConfig(eps=EPS, **PGD),
    "mim": AttackConfig(Kind.mim, eps=EPS, start=Start.none, **PGD),
    "l2": AttackConfig(norm=Norm.l2, eps=1.0, steps=20, step_size=0.1, start=Start.none),
}


def ours(network: nn.Module, x: Tensor, y: Tensor, config: AttackConfig, seed: int = 3) -> Tensor:
    """From the start that the others draw after `torch.manual_seed(seed)`."""
    torch.manual_seed(seed)
    draw = torch.rand(x.shape)
    return attack(Classifier(network, y, cross_entropy_gain), x, ball_of(config), config, lambda _: draw)


@pytest.mark.parametrize("adversarial", [True, False], ids=["fat", "standard"])
@pytest.mark.parametrize("case", CASES)
def test_torchattacks(data_root: Path, test_images: tuple[Tensor, Tensor], case: str, adversarial: bool) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason=WHY.format("torchattacks==3.5.1"))
    (x, y), network = test_images, trained(data_root, adversarial)
    other = {
        "pgd": lambda: torchattacks.PGD(network, eps=EPS, alpha=EPS / 4, steps=20),
        "mim": lambda: torchattacks.MIFGSM(network, eps=EPS, alpha=EPS / 4, steps=20),
        "l2": lambda: torchattacks.PGDL2(network, eps=1.0, alpha=0.1, steps=20, random_start=False),
    }[case]()
    found = ours(network, x, y, CASES[case])
    torch.manual_seed(3)
    points = other(x, y)
    assert abs(robust(network, found, y) - robust(network, points, y)) <= 0.5
    assert ((found - points).abs() > 1e-4).double().mean() < 1e-3, "nearly all pixels are the same"


@pytest.mark.parametrize("adversarial", [True, False], ids=["fat", "standard"])
@pytest.mark.parametrize("case", ["pgd", "l2"])
def test_foolbox(data_root: Path, test_images: tuple[Tensor, Tensor], case: str, adversarial: bool) -> None:
    foolbox = pytest.importorskip("foolbox", reason=WHY.format("foolbox==3.3.4 eagerpy GitPython gitdb smmap"))
    (x, y), network, config = test_images, trained(data_root, adversarial), CASES[case]
    kind = foolbox.attacks.LinfPGD if case == "pgd" else foolbox.attacks.L2PGD
    other = kind(abs_stepsize=config.length, steps=20, random_start=case == "pgd")
    found = ours(network, x, y, config)
    torch.manual_seed(3)
    points = other(foolbox.PyTorchModel(network, bounds=(0, 1)), x, y, epsilons=config.eps)[1]
    assert abs(robust(network, found, y) - robust(network, points, y)) <= 0.5
    assert ((found - points).abs() > 1e-4).double().mean() < 1e-3, "nearly all pixels are the same"


@pytest.mark.parametrize("norm, eps", [(Norm.linf, EPS), (Norm.l2, 1.0)])
@pytest.mark.parametrize("loss", [Loss.ce, Loss.dlr])
def test_apgd_beside_autoattacks(
    data_root: Path, test_images: tuple[Tensor, Tensor], norm: Norm, eps: float, loss: Loss
) -> None:
    pytest.importorskip("pyautoattack", reason="needs the extra: pip install -e '.[aa]'")
    (x, y), network = test_images, trained(data_root, True)
    found = attacked(network, x, y, AttackConfig(Kind.apgd, norm, eps, 100, loss=loss), draws_of(x))
    points = autoattacked(network, x, y, norm=norm, eps=eps, attacks=[f"apgd-{loss}"])
    assert abs(robust(network, found, y) - robust(network, points, y)) <= 0.5


@pytest.mark.parametrize("norm, eps", [(Norm.linf, EPS), (Norm.l2, 1.0), (Norm.l2, 1.5)])
def test_aa_lite_is_close_above_autoattack(
    data_root: Path, test_images: tuple[Tensor, Tensor], norm: Norm, eps: float
) -> None:
    pytest.importorskip("pyautoattack", reason="needs the extra: pip install -e '.[aa]'")
    x, y = (each[:500] for each in test_images)
    network = trained(data_root, True)
    lite = robust(network, worst_of(network, x, y, aa_lite(norm, eps), draws_of(x)), y)
    assert lite - robust(network, autoattacked(network, x, y, norm=norm, eps=eps), y) <= 1.0
