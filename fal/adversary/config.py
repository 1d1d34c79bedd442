"""The keys of an attack, in training and at test time (no torch here: `--help` and `--cfg job` read this file)."""

from dataclasses import dataclass
from enum import StrEnum

from common.errors import UserError


class Norm(StrEnum):
    """What `eps` is measured in."""

    linf = "linf"
    l2 = "l2"
    cap = "cap"
    """Euclidean on the theorem's inputs: unit vectors whose last coordinate is 1/2."""


class Kind(StrEnum):
    """How the points climb."""

    fgsm = "fgsm"
    """One step (Goodfellow et al., arXiv 1412.6572); from a random start it is FGSM-RS (Wong et al., 2001.03994)."""
    pgd = "pgd"
    """Steepest ascent steps, the last point counts (Madry et al., 1706.06083)."""
    mim = "mim"
    """Steps along the sum of all gradients so far, each divided by its mean size (Dong et al., 1710.06081)."""
    apgd = "apgd"
    """Momentum, steps that halve by themselves, the best point counts (Croce and Hein, 2003.01690)."""


class Loss(StrEnum):
    """What the adversary maximises."""

    ce = "ce"
    cw = "cw"
    """Margin: largest other logit minus the label's (Carlini and Wagner, 1608.04644, as PGD uses it)."""
    dlr = "dlr"
    """Difference of logits ratio (Croce and Hein): the margin, whatever the scale of the logits."""
    targeted_dlr = "targeted_dlr"
    """The same towards one class: restart i aims at the i-th most likely other class of the clean image."""
    kl = "kl"
    """Divergence from the clean image's prediction (TRADES, 1901.08573; CalFAT, 2205.14926); in training only."""


class Start(StrEnum):
    """Where the points start."""

    random = "random"
    """Uniform in the ball."""
    none = "none"
    """At the clean point."""
    normal = "normal"
    """At 0.001 times standard normal noise around it (TRADES, CalFAT)."""
    blocks = "blocks"
    """At the rim, 4 x 4 blocks of an image each up or down in all: gradients from there find what those from uniform
    starts miss, much as the stripes that Square starts from (1912.00049)."""
    patch = "patch"
    """At the rim, all of it in one square of an image a third to two thirds as wide. In l2 a uniform start moves every
    pixel by next to nothing and ends where the clean image does; a square leaves the flat ground around it."""


@dataclass
class AttackConfig:
    """One attack. The defaults are PGD-20 at 8/255."""

    kind: Kind = Kind.pgd
    norm: Norm = Norm.linf
    eps: float = 8 / 255
    """Radius: in units of pixels from 0 to 1, so 8/255 and not 8."""
    steps: int = 20
    step_size: float | None = None
    """Length of a step in the norm; null: 2.5 eps / steps, at most eps. APGD has 2 eps and halves it."""
    restarts: int = 1
    """Each with a start of its own; of an item the point with the largest gain counts."""
    loss: Loss = Loss.ce
    start: Start = Start.random

    @property
    def length(self) -> float:
        """Length of a step."""
        return min(self.eps, 2.5 * self.eps / self.steps) if self.step_size is None else self.step_size

    def __post_init__(self) -> None:
        """Refuse what attacks nothing, or something else than was meant.

        Raises:
            UserError: a number out of range, or a key that has no meaning for the kind.
        """
        if not self.eps > 0:
            raise UserError(
                f"attack.eps={self.eps}: an attack needs a radius above 0; train without one by a method that does not "
                "attack (method=fedavg)"
            )
        if self.eps > 1 and self.norm is not Norm.l2:
            raise UserError(
                f"attack.eps={self.eps} with attack.norm={self.norm}: pixels go from 0 to 1, so use a value up to 1; "
                f"{self.eps:g} of 255 is attack.eps={self.eps / 255:.6g}"
            )
        if self.steps < 1:
            raise UserError(f"attack.steps={self.steps}: nothing would be attacked; use 1 or more")
        if self.restarts < 1:
            raise UserError(f"attack.restarts={self.restarts}: use 1 (one start) or more")
        if self.kind is Kind.fgsm and self.steps != 1:
            raise UserError(f"attack.steps={self.steps} with attack.kind=fgsm, which takes one: use 1, or kind=pgd")
        if self.step_size is not None:
            self._check_step(self.step_size)
        if self.restarts > 1 and self.start is Start.none and self.loss is not Loss.targeted_dlr:
            raise UserError(
                f"attack.restarts={self.restarts} with attack.start=none: all would be the same; use start=random"
            )

    def _check_step(self, step_size: float) -> None:
        if self.kind is Kind.apgd:
            raise UserError(f"attack.step_size={step_size} with attack.kind=apgd, which chooses its own: use null")
        if not 0 < step_size <= 2 * self.eps:
            raise UserError(
                f"attack.step_size={step_size} with attack.eps={self.eps}: a step longer than 2 eps = {2 * self.eps:g} "
                "leaves the ball from everywhere, one of 0 goes nowhere; use a value between, or null"
            )
