"""AutoAttack as a judge from outside: the package `pyautoattack`, the extra `aa`."""

import torch
from torch import Tensor, nn

from common.errors import UserError
from fal.adversary.config import Norm
from fal.adversary.robust import check_pixels, evaluating

NAMES = {Norm.linf: "Linf", Norm.l2: "L2"}
TARGETS = 9
"""Classes that its standard version aims at, where there are as many."""


def autoattacked(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    eps: float,
    attacks: list[str] | None = None,
    seed: int = 0,
    batch: int = 250,
) -> Tensor:
    """Points of AutoAttack's standard version around images x, [items, channels, height, width]; clean where robust.

    Args:
        network: images in [0, 1] -> logits [items, classes]; it is judged in evaluation mode.
        x: the images.
        y: their labels, [items].
        norm: linf or l2.
        eps: the radius.
        attacks: these of its attacks alone, such as ["apgd-ce"].
        seed: of its random numbers; the global generators stay as they are.
        batch: images at a time.

    Raises:
        UserError: the package is not installed, another norm, pixels outside [0, 1], or fewer than four classes.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise UserError("AutoAttack is not installed: pip install -e '.[aa]', or leave its column out") from None
    if norm not in NAMES:
        raise UserError(f"attack.norm={norm} with AutoAttack: it knows linf and l2")
    check_pixels(x)
    with evaluating(network), torch.random.fork_rng():
        with torch.no_grad():
            classes = network(x[:1]).shape[-1]
        if classes < 4:
            raise UserError(f"AutoAttack with {classes} classes: its targeted attacks compare 4; use attack.loss=cw")
        how = {"version": "standard"} if attacks is None else {"version": "custom", "attacks": attacks}
        judge = AutoAttack(network, norm=NAMES[norm], eps=eps, seed=seed, device=x.device, **how)
        judge.apgd.n_restarts = judge.fab.n_restarts = 1  # as in the standard version
        judge.apgd_targeted.n_target_classes = judge.fab.n_target_classes = min(TARGETS, classes - 1)
        points, _ = judge.run_standard_evaluation(x, y, batch_size=batch)
    return points
