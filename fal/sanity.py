"""Does an evaluation deserve belief? What holds of every sound attack, checked on a few images.

After Athalye et al. (arXiv 1802.00420) and Carlini et al. (1902.06705): a network that hides its gradients looks robust
and breaks one of these.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from fal.adversary.balls import L2, Linf
from fal.adversary.config import AttackConfig, Kind, Norm, Start
from fal.adversary.robust import attacked, is_right
from fal.attack import Draws

WIDE = 0.5
"""Radius a pixel within which every image can be made grey."""
NOTHING = 0.02
"""Accuracy that may be left there."""
NOISES = 10
"""Random points that are tried around an image."""
ORDER = (
    ("natural", "half eps", "an attack that may do nothing cannot help"),
    ("half eps", "attack", "a larger ball holds the smaller one, so the steps lose their way: gradients may be hidden"),
    (
        "attack",
        f"eps = {WIDE}",
        "a larger ball holds the smaller one, so the steps lose their way: gradients may be hidden",
    ),
    ("attack", "twice the steps", "more steps cannot help the defender: the steps lose their way"),
    ("attack", "two more restarts", "more starts cannot help the defender: points are lost between restarts"),
    (
        "noise",
        "attack",
        "the gradient does not lead to misclassified points that chance finds: gradients may be hidden",
    ),
    ("fgsm", "attack", "one step finds more than many: they are too long, or gradients are hidden"),
    ("transfer", "attack", "another network's gradients lead further than the network's own, which are then hidden"),
)
"""A weaker attack, a stronger one, and what it means if the stronger one leaves more images robust."""


@dataclass(frozen=True)
class Sanity:
    """What was measured, and what of it cannot be."""

    accuracies: dict[str, float]
    """Name of an attack -> share of the images that withstand it."""
    failures: list[str]
    """A sentence each; none where all is well."""


def sanity(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    config: AttackConfig,
    draws: Draws,
    *,
    surrogate: nn.Module | None = None,
    bounded: bool = True,
) -> Sanity:
    """Attack some images in all the ways of `ORDER` and say what cannot be.

    Two attacks are compared on the same images, beyond three standard deviations of chance.

    Args:
        network: images in [0, 1] -> logits [items, classes]; judged in evaluation mode.
        x: the images, [items, ...], some hundred: about ten times the work of the attack.
        y: their labels, [items].
        config: the attack of the evaluation, of several steps, in linf or l2.
        draws: random numbers: those of `config`, of two more restarts, and then of the noise.
        surrogate: another network for the same task, whose adversarial images must not beat the network's own; without
            one transfer is not measured.
        bounded: are they images? Vectors may lie anywhere, and no radius makes all of them equal.

    Raises:
        UserError: as `fal.adversary.robust.attacked`, or another norm.
    """
    if config.norm is Norm.cap:
        raise UserError("attack.norm=cap in the checks of an evaluation: they are for images; use linf or l2")
    shape, box = Linf if config.norm is Norm.linf else L2, (0.0, 1.0) if bounded else None

    def withstand(victim: nn.Module = network, /, **changes: Any) -> Tensor:
        return is_right(network, attacked(victim, x, y, replace(config, **changes), draws, bounded=bounded), y)

    def scaled(eps: float) -> dict[str, Any]:
        return {"eps": eps, "step_size": config.step_size and config.step_size * eps / config.eps}

    first = config.restarts + 2
    noise = [is_right(network, shape(config.eps, box).start(x, draws(first + each)), y) for each in range(NOISES)]
    right = {
        "natural": is_right(network, x, y),
        "eps = 0": is_right(network, attacked(network, x, y, config, draws, ball=shape(0.0, box), bounded=bounded), y),
        "noise": torch.stack(noise).all(0),
        "fgsm": withstand(kind=Kind.fgsm, steps=1, step_size=config.eps, restarts=1, start=Start.none),
        "half eps": withstand(**scaled(config.eps / 2)),
        "attack": withstand(),
        "twice the steps": withstand(steps=2 * config.steps),
        "two more restarts": withstand(restarts=first, start=Start.random),
    }
    if bounded:
        wide = max(config.eps, WIDE if config.norm is Norm.linf else WIDE * math.sqrt(x[0].numel()))
        right[f"eps = {WIDE}"] = withstand(**scaled(wide))
    if surrogate is not None:
        right["transfer"] = withstand(surrogate)
    accuracies = {name: each.double().mean().item() for name, each in right.items()}
    return Sanity(accuracies, _contradictions(right, accuracies))


def _contradictions(right: dict[str, Tensor], accuracies: dict[str, float]) -> list[str]:
    said = {name: f"{100 * share:.1f} %" for name, share in accuracies.items()}
    found = []
    if not torch.equal(right["eps = 0"], right["natural"]):
        found.append(
            f"eps = 0 leaves {said['eps = 0']} and natural accuracy is {said['natural']}: the same images are judged "
            "in two ways; the network may draw random numbers or depend on the batch"
        )
    for weaker, stronger, meaning in ORDER:
        if {weaker, stronger} <= right.keys() and _helps(right[weaker], right[stronger]):
            found.append(f"{stronger} leaves {said[stronger]}, {weaker} {said[weaker]}: {meaning}")
    if accuracies.get(f"eps = {WIDE}", 0.0) > NOTHING:
        found.append(
            f"eps = {WIDE} leaves {said[f'eps = {WIDE}']}: any image can be grey there, so about 0 should be left; "
            "gradients may be hidden, or the network says one class always"
        )
    return found


def _helps(weaker: Tensor, stronger: Tensor) -> bool:
    """Does the stronger attack leave more, beyond three standard deviations of a fair coin for each difference?"""
    more, less = (stronger & ~weaker).sum().item(), (weaker & ~stronger).sum().item()
    return more - less > 3 * math.sqrt(more + less)
