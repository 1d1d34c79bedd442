"""Auto-PGD (Croce and Hein, arXiv 2003.01690, algorithm 1) as a way to climb."""

import math
from functools import cache

import torch
from torch import Tensor

from fal.adversary.balls import Ball, Projection
from fal.adversary.config import AttackConfig
from fal.adversary.path import Path, choose, wide

MOMENTUM = 0.75
"""Share of the new step; the rest is the step before."""
RISING = 0.75
"""Share of the steps that must raise the gain, or the length halves."""


@cache
def checkpoints(steps: int) -> dict[int, int]:
    """Step at which the length may halve -> steps since the one before (section 3.2 of the paper)."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    at = sorted({math.ceil(round(share * steps, 9)) for share in shares})  # 0.22 * 50 is 11, in floats a bit more
    return {this: this - last for last, this in zip(at, at[1:], strict=False) if this < steps}


def apgd(path: Path, step: int, ball: Ball, project: Projection, config: AttackConfig) -> None:
    """A step with momentum. At checkpoints, items that rose too seldom or found nothing better go back to their best
    point and on from there with half the length.
    """
    if step == 0:
        path |= {"before": path["at"], "best": path["at"], "best_gradient": path["gradient"], "highest": path["gain"]}
        path |= {"mark": path["gain"], "rises": torch.zeros_like(path["gain"])}
        path["length"] = wide(torch.full_like(path["gain"], 2 * ball.radius), path["at"])
        path["halved"] = torch.zeros_like(path["gain"], dtype=torch.bool)
    else:
        path["rises"] = path["rises"] + (path["gain"] > path["last"])
        path["best_gradient"] = choose(path["gain"] > path["highest"], path["gradient"], path["best_gradient"])
        path["best"], path["highest"] = best_of(path)
        if span := checkpoints(config.steps).get(step):
            _check(path, span)
    path["last"] = path["gain"]
    at = path["at"]
    new = project(ball.step(at, path["gradient"], path["length"]))
    share = MOMENTUM if step else 1.0
    path["at"] = project(at + share * (new - at) + (1 - share) * (at - path["before"]))
    path["before"] = at


def best_of(path: Path) -> tuple[Tensor, Tensor]:
    """The best points so far, those of now among them, and their gain."""
    better = path["gain"] > path["highest"]
    return choose(better, path["at"], path["best"]), torch.where(better, path["gain"], path["highest"])


def _check(path: Path, span: int) -> None:
    """The checkpoint after `span` steps: conditions 1 and 2 of the paper."""
    stuck = (path["rises"] < RISING * span) | (~path["halved"] & (path["highest"] == path["mark"]))
    path["length"] = choose(stuck, path["length"] / 2, path["length"])
    path["at"] = choose(stuck, path["best"], path["at"])
    path["gradient"] = choose(stuck, path["best_gradient"], path["gradient"])
    path |= {"halved": stuck, "mark": path["highest"], "rises": torch.zeros_like(path["rises"])}
