"""Ways to climb: each moves the points of a path by one step."""

from collections.abc import Callable

import torch

from fal.adversary.apgd import apgd
from fal.adversary.balls import Ball, Projection
from fal.adversary.config import AttackConfig, Kind
from fal.adversary.path import Path, wide

Ascent = Callable[[Path, int, Ball, Projection, AttackConfig], None]
"""(path, index of the step, ball, its projection around x, attack): writes the next points to `at`."""


def pgd(path: Path, step: int, ball: Ball, project: Projection, config: AttackConfig) -> None:
    """A step of steepest ascent, projected."""
    path["at"] = project(ball.step(path["at"], path["gradient"], config.length))


def mim(path: Path, step: int, ball: Ball, project: Projection, config: AttackConfig) -> None:
    """The same along the sum of all gradients so far, each at mean size 1 (arXiv 1710.06081, with decay 1)."""
    gradient = path["gradient"]
    size = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    path["velocity"] = gradient / wide(size, gradient) + (path["velocity"] if step else 0)
    path["at"] = project(ball.step(path["at"], path["velocity"], config.length))


ASCENTS: dict[Kind, Ascent] = {Kind.fgsm: pgd, Kind.pgd: pgd, Kind.mim: mim, Kind.apgd: apgd}
