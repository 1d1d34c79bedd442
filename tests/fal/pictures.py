"""Small pictures and a network that has learnt them, for tests of attacks."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fal.attack import Draws

CLASSES, SIDE = 5, 8


def draws_of(x: Tensor, seed: int = 0) -> Draws:
    """Random numbers of a seed and the restart, of no global generator."""
    return lambda restart: torch.rand(
        x.shape, generator=torch.Generator().manual_seed(1000 * seed + restart), dtype=x.dtype
    )


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy grey pictures, each with a bar whose row tells the class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    images = 0.25 + 0.3 * torch.rand(count, 1, SIDE, SIDE, generator=draw)
    images[torch.arange(count), 0, labels + 1] += 0.2
    return images, labels


@cache
def learnt() -> nn.Module:
    """A network of two layers with batch norm and dropout, about perfect on clean pictures; in evaluation mode."""
    torch.manual_seed(5)
    body = (nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * SIDE**2, CLASSES))
    x, y = pictures(600, seed=1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for step in range(60):
        some = torch.arange(64) + 64 * step
        optimiser.zero_grad()
        F.cross_entropy(network(x[some % 600]), y[some % 600]).backward()
        optimiser.step()
    for weight in network.parameters():
        weight.grad = None
    return network.eval()
