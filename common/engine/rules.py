"""Inner update rules: the steps of `torch.optim`, with their derivatives written by hand.

A rule knows two things about one tensor: how to take a step in place (`advance`), and how to pull the cotangents of
that step back to its inputs (`pull`). Everything else is made of these two: `common.engine.unroll.step` is a node of
the autograd graph that covers all tensors at once, `common.engine.unroll.rebuilt` calls them without any graph, and
`common.engine.cuda` has forms of the rules below for many tensors at once. The derivatives are of first order: nothing
differentiates a meta-gradient again.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from common.engine.settings import InnerConfig, RuleName
from common.errors import UserError

Buffers = list[Tensor]
"""What a rule remembers of one tensor, each of its shape: nothing before the first step."""


@dataclass(frozen=True)
class RuleState:
    """What a rule remembers between steps: `count` steps taken, and the buffers of every weight."""

    count: int = 0
    buffers: dict[str, Buffers] = field(default_factory=dict)


class UpdateRule(Protocol):
    """One step of an optimiser, and its derivative, for one tensor."""

    @property
    def buffers(self) -> int:
        """How many buffers a tensor has after the first step."""
        ...

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """Take step number `count` (from 1) in place: `w` and `buffers` change, `g` does not.

        An empty list of buffers is one before the first step, and is filled.
        """
        ...

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """Cotangents of the step's inputs from those of its outputs, in place; returns the rate's, shape [].

        Args:
            w: the weight before the step.
            g: its gradient; becomes the gradient's cotangent.
            rate: the step's learning rate.
            after: buffers after the step; used up.
            count: number of the step, from 1.
            bar: cotangent of the weight after the step; becomes that of the weight before it, the way through the
                gradient not included.
            bars: cotangents of the buffers after the step, or an empty list for zeros; become those of the buffers
                before it, and an empty list if the step was the first.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """w <- w - rate * (g + weight_decay * w)."""

    weight_decay: float = 0.0

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """One step of gradient descent."""
        w.add_(g.add(w, alpha=self.weight_decay) if self.weight_decay else g, alpha=-rate)

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """d(w')/d(w) = 1 - rate * weight_decay, d(w')/d(g) = -rate."""
        if self.weight_decay:
            g.add_(w, alpha=self.weight_decay)
        rate_bar = -_dot(bar, g)
        torch.mul(bar, -rate, out=g)
        bar.mul_(1 - rate * self.weight_decay)
        return rate_bar


@dataclass(frozen=True)
class SignSGD:
    """w <- w - rate * sign(g): steps of one size in every entry, as an attack on inputs takes them.

    Not among `inner.rule`: the sign has derivative 0, so no outer gradient passes through its gradients.
    """

    @property
    def buffers(self) -> int:
        """None."""
        return 0

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """One step of size `rate` in every entry whose gradient is not 0."""
        w.add_(g.sign(), alpha=-rate)

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """d(w')/d(w) = 1, d(w')/d(g) = 0."""
        rate_bar = -_dot(bar, g.sign_())
        g.zero_()
        return rate_bar


@dataclass(frozen=True)
class Momentum:
    """v <- momentum * v + g (v = g at the first step, as in torch); w <- w - rate * v."""

    momentum: float = 0.9
    weight_decay: float = 0.0

    @property
    def buffers(self) -> int:
        """The velocity."""
        return 1

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """One step of heavy-ball momentum."""
        if self.weight_decay:
            g = g.add(w, alpha=self.weight_decay)
        if buffers:
            buffers[0].mul_(self.momentum).add_(g)
        else:
            buffers.append(g if self.weight_decay else g.clone())
        w.add_(buffers[0], alpha=-rate)

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """The velocity's cotangent is that of the gradient with its decay."""
        rate_bar = -_dot(bar, after[0])
        torch.mul(bar, -rate, out=g)
        if bars:
            g.add_(bars[0])
        if count == 1:
            bars.clear()
        else:
            bars[:] = [torch.mul(g, self.momentum, out=after[0])]
        bar.add_(g, alpha=self.weight_decay)
        return rate_bar


@dataclass(frozen=True)
class AdamW:
    """Adam with bias correction and decoupled weight decay; defaults as in torch.optim.

        w <- (1 - rate * weight_decay) * w - rate * mean / (root + eps + floor * rms(root))

    `mean` and `root` (of the second moment) are corrected for their start at 0. The root's derivative is taken as 0
    where the second moment is exactly 0 (embedding rows never used), where it would be infinite; the floor is a
    constant in the derivative.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    floor: float = 0.0
    """Share of the root mean square of a tensor's root that every denominator gains: bounds the slope of a step where a
    gradient is near 0, whatever the gradients' size."""
    zero_floor: float = 0.0
    """What the denominators gain in its place where the root is 0 in all entries, as in LoRA's A while B is 0: such a
    tensor has no size of its own, and its slope would be rate / eps."""
    stacked: bool = False
    """The first axis is of tasks: each has a floor of its own. `common.engine.together.bound` sets it."""

    def __post_init__(self) -> None:
        """Raises a UserError for a negative floor, or one that is no number: a denominator could be 0 or less."""
        if not (self.floor >= 0 and self.zero_floor >= 0):
            raise UserError(f"inner.floor={self.floor}, inner.zero_floor={self.zero_floor}: use 0 or more")

    @property
    def buffers(self) -> int:
        """Mean of the gradients and of their squares."""
        return 2

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """One step of AdamW."""
        if buffers:
            buffers[0].mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            buffers[1].mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        else:
            buffers.append(g * (1 - self.beta1))
            buffers.append((g * g).mul_(1 - self.beta2))
        mean, square = buffers
        root = (square / (1 - self.beta2**count)).sqrt_()
        least = self.least(root)
        scale = root.add_(self.eps) if least is None else root.add_(self.eps).add_(least)
        w.mul_(1 - rate * self.weight_decay).addcdiv_(mean, scale, value=-rate / (1 - self.beta1**count))

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """With s = sqrt(v / c2), its sum d and a = rate * bar / (c1 * d): m gets -a, and v gets a m / (2 d s c2)."""
        correction1, correction2 = 1 - self.beta1**count, 1 - self.beta2**count
        mean, square = after
        root = square.div_(correction2).sqrt_()
        scale, least = root + self.eps, self.least(root)
        if least is not None:
            scale.add_(least)
        moved = mean.div_(scale)  # m / d, the direction of the step up to c1
        rate_bar = -(_dot(bar, moved) / correction1 + self.weight_decay * _dot(bar, w))
        mean_bar = (bar / scale).mul_(-rate / correction1)
        flat = root == 0
        square_bar = moved.mul_(mean_bar).div_(root.mul_(-2 * correction2)).masked_fill_(flat, 0.0)
        if bars:
            mean_bar.add_(bars[0])
            square_bar.add_(bars[1])
        g.mul_(square_bar).mul_(2 * (1 - self.beta2)).add_(mean_bar, alpha=1 - self.beta1)
        if count == 1:
            bars.clear()
        else:
            bars[:] = [mean_bar.mul_(self.beta1), square_bar.mul_(self.beta2)]
        bar.mul_(1 - rate * self.weight_decay)
        return rate_bar

    def least(self, root: Tensor) -> Tensor | None:
        """What the denominators of a tensor gain besides eps; shape [], of a stack [tasks, 1, ...]; None: nothing."""
        if not (self.floor or self.zero_floor):
            return None
        tasks, shape = (len(root), root.shape[1:]) if self.stacked else (1, root.shape)
        size = math.prod(shape)
        rms = torch.linalg.vector_norm(root.reshape(tasks, size), dim=1) / math.sqrt(max(1, size))
        least = torch.where(rms == 0, self.zero_floor, self.floor * rms)
        return least.view(-1, *(1 for _ in shape)) if self.stacked else least.view(())


@dataclass(frozen=True)
class Together:
    """A rule for all tensors of a step; in place of one wherever `common.engine.inner.adapt` takes a rule.

    What it asks for is done by `common.engine.together`.
    """

    rule: UpdateRule
    clip: float = 0.0
    """Largest norm of a task's gradient over all its fast weights, larger ones are scaled down to it; 0: any."""
    no_decay: tuple[str, ...] = ()
    """Shell patterns of the names of weights that do not decay."""
    spared: tuple[bool, ...] = ()
    """Whether `no_decay` has it, one a weight; `common.engine.together.bound` fills it."""

    def __post_init__(self) -> None:
        """Raises a UserError for a rule of this kind inside, a norm below 0 or that is no number, a list of names."""
        if isinstance(self.rule, Together):
            raise UserError("Together around Together: give clip and no_decay to one of them")
        if not self.clip >= 0:
            raise UserError(f"inner.clip={self.clip}: a norm is positive; use 0 for none")
        if not isinstance(self.no_decay, tuple):
            raise UserError(f"inner.no_decay={self.no_decay!r}: give Together a tuple of patterns, such as ('*bias',)")

    @property
    def buffers(self) -> int:
        """Those of the rule."""
        return self.rule.buffers

    def advance(self, w: Tensor, g: Tensor, rate: float, buffers: Buffers, count: int) -> None:
        """A tensor alone has no place here.

        Raises:
            TypeError: always.
        """
        raise TypeError("Together is a rule for all tensors of a step: common.engine.cuda.updates(device).advance")

    def pull(self, w: Tensor, g: Tensor, rate: float, after: Buffers, count: int, bar: Tensor, bars: Buffers) -> Tensor:
        """The same.

        Raises:
            TypeError: always.
        """
        raise TypeError("Together is a rule for all tensors of a step: common.engine.cuda.updates(device).pull")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def make_rule(config: InnerConfig) -> UpdateRule:
    """The rule that `inner.rule` names, with its settings."""
    rule: UpdateRule
    if config.rule is RuleName.sgd:
        rule = SGD(config.weight_decay)
    elif config.rule is RuleName.momentum:
        rule = Momentum(config.momentum, config.weight_decay)
    else:
        rule = AdamW(
            config.beta1, config.beta2, config.eps, config.weight_decay,
            floor=config.floor, zero_floor=config.zero_floor,
        )  # fmt: skip
    if config.clip or config.no_decay:
        return Together(rule, config.clip, tuple(config.no_decay))
    return rule
