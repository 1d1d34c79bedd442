"""Attacks at test time: on a network whatever its mode, item by item until it is fooled, alone or several in turn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from common.errors import UserError
from fal.adversary.config import AttackConfig, Kind, Loss, Norm, Start
from fal.adversary.gains import LABEL_GAINS, Classifier
from fal.attack import Ball, Draws, attack, ball_of

PATCHES = 15
"""Starts from patches, of each of two losses: what the first few do not find the next ones do."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within this block every module of `network` evaluates; then each is in the mode that it was in before."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def is_right(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Who of [items, ...] is classified as in `y`, [items], in evaluation mode."""
    with evaluating(network), torch.no_grad():
        return network(x).argmax(-1) == y


def attacked(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    config: AttackConfig,
    draws: Draws,
    *,
    ball: Ball | None = None,
    bounded: bool = True,
) -> Tensor:
    """Points of the ball around images x that fool `network` where the attack finds one, in evaluation mode.

    A misclassified image stays as it is and a fooled one stays where it was fooled, so an item counts as robust only if
    all of its path is classified as in `y`.

    Args:
        network: images [items, channels, height, width] in [0, 1] -> logits [items, classes].
        x: the images.
        y: their labels, [items].
        config: the attack; with `loss=targeted_dlr` restart i aims at the i-th most likely class besides the label.
        draws: random numbers of the starts.
        ball: in place of the one that `config` names.
        bounded: are they images? Vectors [items, coordinates] may lie anywhere.

    Raises:
        UserError: pixels outside [0, 1], more classes asked for than there are, or a loss that is for training.
    """
    if bounded:
        check_pixels(x)
    if config.loss is Loss.kl:
        raise UserError("attack.loss=kl at test time: it knows no labels; use ce, cw, dlr or targeted_dlr")
    ball = ball_of(config, bounded=bounded) if ball is None else ball
    gain = Classifier(network, y, LABEL_GAINS[config.loss])
    with evaluating(network):
        if config.loss is not Loss.targeted_dlr:
            return attack(gain, x, ball, config, draws, early_exit=True)
        points, once = x, replace(config, restarts=1)
        for restart, aim in enumerate(_likeliest_others(network, x, y, config.restarts)):
            left = is_right(network, points, y)
            if not left.any():
                break
            aimed = replace(gain, labels=y[left], also=(aim[left],))
            found = attack(aimed, x[left], ball, once, _some(draws, restart, left), early_exit=True)
            points = points.index_put((left,), found)
    return points


def worst_of(
    network: nn.Module, x: Tensor, y: Tensor, attacks: Sequence[AttackConfig], draws: Draws, *, bounded: bool = True
) -> Tensor:
    """Points of several attacks in turn: each takes on the images that those before left robust. As `attacked`."""
    points, first = x, 0
    for config in attacks:
        left = is_right(network, points, y)
        if not left.any():
            break
        found = attacked(network, x[left], y[left], config, _some(draws, first, left), bounded=bounded)
        points = points.index_put((left,), found)
        first += config.restarts
    return points


def aa_lite(
    norm: Norm, eps: float, steps: int = 50, targets: int = 3, *, classes: int = 10, blocks: bool = True
) -> tuple[AttackConfig, ...]:
    """AA-lite, for `worst_of`: nearly what AutoAttack finds (arXiv 2003.01690), much sooner.

    Its APGD on cross-entropy and towards the likeliest other classes, and in place of its Square, which takes longest,
    APGD from far starts: in linf on the margin from blocks, in l2 a few steps from many patches. Of fewer than four
    classes, which the targeted loss cannot compare, the second attack climbs the margin; without `blocks`, which
    vectors do not have, the last starts anywhere.
    """
    aimed, start = Loss.targeted_dlr if classes >= 4 else Loss.cw, Start.blocks if blocks else Start.random
    near = (
        AttackConfig(Kind.apgd, norm, eps, steps),
        AttackConfig(Kind.apgd, norm, eps, steps, restarts=targets, loss=aimed),
    )
    if norm is Norm.l2 and blocks:
        few = AttackConfig(Kind.apgd, norm, eps, max(1, steps // 5), restarts=PATCHES, start=Start.patch)
        return *near, few, replace(few, loss=Loss.cw)
    return *near, AttackConfig(Kind.apgd, norm, eps, max(1, steps // 2), restarts=5, loss=Loss.cw, start=start)


def check_pixels(x: Tensor) -> None:
    """Refuse images that are no images.

    Raises:
        UserError: pixels outside [0, 1], or not finite.
    """
    if len(x) and not (x.amin() >= 0 and x.amax() <= 1):
        raise UserError(
            f"images with pixels from {x.amin():.3g} to {x.amax():.3g}: attacks take pixels from 0 to 1; take the "
            "normalisation out of the data, the model has it as its first layer"
        )


def _some(draws: Draws, first: int, items: Tensor) -> Draws:
    """The random numbers of some items, counted from restart `first`."""
    return lambda restart: draws(first + restart)[items]


def _likeliest_others(network: nn.Module, x: Tensor, y: Tensor, count: int) -> Tensor:
    """[count, items]: classes besides `y` in the order of the logits at x."""
    with torch.no_grad():
        logits = network(x)
    if count > logits.shape[-1] - 1:
        raise UserError(
            f"attack.restarts={count} with attack.loss=targeted_dlr and {logits.shape[-1]} classes: there are "
            f"{logits.shape[-1] - 1} others to aim at; use at most as many"
        )
    return logits.scatter(-1, y[:, None], -torch.inf).topk(count).indices.T
