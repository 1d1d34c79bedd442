"""Settings of the inner and the outer loop (no torch here: `--help` and `--cfg job` read this file)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from common.errors import UserError

HASHED_IF_SET: Final[Mapping[str, Any]] = {"hashed": "if set"}
"""`common.fields.HASHED_IF_SET`, in words of its own as the engine imports none of its users."""


class RuleName(StrEnum):
    """Inner optimisers of `common.engine.rules`."""

    sgd = "sgd"
    momentum = "momentum"
    adamw = "adamw"


class Unroll(StrEnum):
    """How much of the inner loop the outer gradient passes through."""

    stored = "stored"
    """The graph of all steps: the exact meta-gradient, fastest while it fits."""
    recompute = "recompute"
    """The exact meta-gradient with one step's graph in memory at a time; the last `keep` steps store theirs."""
    auto = "auto"
    """`stored` if it fits the memory budget, else `recompute` with as many stored steps as do; logged."""
    truncate = "truncate"
    """The last `keep` steps exactly; earlier ones build no graph, their Jacobian is the identity."""
    tgu = "tgu"
    """Truncated gradient unrolling: the last `keep` steps exactly, earlier ones as in `first_order`, so that their
    rates learn too; weights, gradients and rule state of all steps are kept, where `truncate` forgets the earlier."""
    first_order = "first_order"
    """Gradients inside the steps are constants; start weights and rates still get their first-order gradient."""
    none = "none"
    """No outer gradient at all: evaluation."""

    @property
    def second_order(self) -> bool:
        """Does the outer gradient pass through a gradient inside the steps?"""
        return self not in (Unroll.first_order, Unroll.none)

    @property
    def exact(self) -> bool:
        """Does it pass through all of every step, rebuilt or not?"""
        return self in (Unroll.stored, Unroll.recompute, Unroll.auto)


class Snapshots(StrEnum):
    """Where `recompute` keeps what it needs of every step."""

    device = "device"
    """With the weights: one copy of them a step."""
    host = "host"
    """In host memory (pinned, on a stream of its own on CUDA): nothing on the device."""


class Kernels(StrEnum):
    """How the tensors of one update are walked over. The numbers agree to rounding."""

    auto = "auto"
    """`foreach` on CUDA, `reference` elsewhere."""
    reference = "reference"
    """One after the other in plain torch."""
    foreach = "foreach"
    """A few of torch's multi-tensor operations for all of them (`common.engine.cuda.foreach`)."""
    fused = "fused"
    """One Triton kernel for all of them (`common.engine.cuda.fused`): CUDA and float32 only."""


class RateSpace(StrEnum):
    """How a stored number becomes a rate."""

    raw = "raw"
    """The number is the rate; nothing keeps it positive."""
    exp = "exp"
    """rate = exp(number)."""
    softplus = "softplus"
    """rate = log(1 + exp(number))."""


class RateGroup(StrEnum):
    """Which weights share a rate."""

    tensor = "tensor"
    """One rate a parameter tensor and step."""
    layer = "layer"
    """One rate a layer and step; see `common.engine.rates.layer_of`."""


@dataclass
class InnerConfig:
    """How fast weights adapt."""

    rule: RuleName = RuleName.adamw
    steps: int = 4
    """N, inner steps in training and at test time."""
    lr: float = 3e-5
    """Where every rate starts."""
    learned: bool = True
    """Learn the rates in the outer loop; false keeps them at `lr` (the static ablation)."""
    space: RateSpace = RateSpace.raw
    per: RateGroup = RateGroup.tensor
    weight_decay: float = 0.01
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    floor: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Of AdamW: every denominator also gains this share of the root mean square of the root in its tensor (and task),
    which bounds the slope where a gradient is near 0 whatever the gradients' size; 0.1 is a usual value, 0 is off."""
    zero_floor: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Of AdamW: what the denominators of a tensor gain whose root is 0 in all entries, such as LoRA's A while B is 0,
    which no share of its size can bound; 0 is off."""
    clip: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Largest norm of a problem's inner gradient over all fast weights, in every step; 0 switches clipping off."""
    no_decay: list[str] = field(default_factory=list, metadata=HASHED_IF_SET)
    """Shell patterns of the names of fast weights without weight decay, such as ['*bias', '*ln_*'] for GPT-2's biases
    and norms; [] lets all decay."""
    unroll: Unroll = Unroll.stored
    keep: int = 0
    """With unroll=truncate or tgu: how many of the last steps keep their graph. With recompute: how many store it
    instead of building it again, the same numbers sooner with more memory."""
    memory_gb: float = 0.0
    """With unroll=auto: memory for one outer gradient; 0 takes 60 % of the device's."""
    micro_batch: int = 0
    """Facts (rows of inner data) in one graph: the gradient is summed over such parts; 0 takes all at once."""
    snapshots: Snapshots = Snapshots.device
    """With unroll=recompute: where the steps are remembered."""
    compile: bool = False
    """torch.compile for gradients and rebuilt steps: less memory and time, a first call of up to a minute a shape."""
    weights: list[str] = field(default_factory=lambda: ["*"])
    """Shell patterns of the parameter names that are fast; '*' is all."""
    stack: bool = False
    """Adapt all problems of a batch at once (vmap) where one by one would leave the device idle: faster for small
    models, more memory. The work of one problem decides (`common.engine.plan`)."""

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: a value is out of range or contradicts another.
        """
        if self.steps < 1:
            raise UserError(f"inner.steps={self.steps}: at least one inner step is needed; use 1 or more")
        _refuse_negative("inner", lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)
        _refuse_negative("inner", floor=self.floor, zero_floor=self.zero_floor)
        _refuse_as_share("inner", momentum=self.momentum, beta1=self.beta1, beta2=self.beta2)
        _refuse_as_guard("inner", self.eps)
        if self.unroll is Unroll.none:
            raise UserError(
                "inner.unroll=none: no outer gradient, so nothing trains; "
                "use auto, stored, recompute, truncate, tgu or first_order"
            )
        _refuse_negative("inner", memory_gb=self.memory_gb, micro_batch=self.micro_batch)
        if not 0 <= self.keep <= self.steps:
            raise UserError(f"inner.keep={self.keep} with inner.steps={self.steps}: use 0 to {self.steps}")
        if self.unroll not in (Unroll.truncate, Unroll.tgu, Unroll.recompute) and self.keep:
            raise UserError(
                f"inner.keep={self.keep} has no meaning with inner.unroll={self.unroll}; "
                "use unroll=truncate, tgu or recompute"
            )
        if self.unroll is Unroll.truncate and self.keep == 0 and self.learned:
            raise UserError(
                "inner.unroll=truncate with inner.keep=0 and inner.learned=true: no gradient reaches the rates; "
                "use inner.keep=1 or more, inner.learned=false, or inner.unroll=first_order"
            )
        if self.snapshots is Snapshots.host and self.unroll not in (Unroll.recompute, Unroll.auto):
            raise UserError(
                f"inner.snapshots=host has no meaning with inner.unroll={self.unroll}; use unroll=recompute or auto"
            )
        if self.space is not RateSpace.raw and self.lr == 0:
            raise UserError(
                f"inner.lr={self.lr} with inner.space={self.space}: the rate must be positive; "
                "use a value above 0, or inner.space=raw"
            )
        if not self.weights:
            raise UserError("inner.weights=[]: no weight is fast; use ['*'] for all")


class Schedule(StrEnum):
    """How the outer learning rate falls after the warm-up."""

    linear = "linear"
    cosine = "cosine"


@dataclass
class OuterConfig:
    """How the outer problem is optimised: AdamW with a schedule."""

    lr: float = 3e-5
    """Peak learning rate of the weights."""
    rates_lr: float = 3e-5
    """Peak learning rate of the learned inner rates, in their own space."""
    weight_decay: float = 0.05
    """On matrices and embeddings only: vectors (biases, norm gains) and learned rates never decay."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 0.1
    """Largest global gradient norm; 0 switches clipping off."""
    warmup: float = 0.06
    """Share of all outer steps (of a study: of the first budget) in which the rate rises linearly; then it falls."""
    decay: float = field(default=0.0, metadata=HASHED_IF_SET)
    """Share of all outer steps, the last ones, in which the rate falls; before them it stays at its peak. 0: it falls
    from the warm-up on."""
    batch_problems: int = 2
    """Problems whose losses are summed in one batch."""
    accumulation: int = 2
    """Batches an outer step."""
    steps: int = 0
    """Outer steps in all; 0 means `epochs` passes over the training split."""
    epochs: int = 6
    multiples: list[int] = field(default_factory=list, metadata=HASHED_IF_SET)
    """Budget study, such as [1, 3, 9]: train `steps` the last number of times over, and see on the way what a run of
    each other number comes to, by a branch whose rate falls to 0 (`common.run.branches`); [] trains `steps`."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            UserError: a value is out of range.
        """
        if self.batch_problems < 1 or self.accumulation < 1:
            raise UserError(
                f"outer.batch_problems={self.batch_problems}, outer.accumulation={self.accumulation}: both must be >= 1"
            )
        if self.steps < 0 or (self.steps == 0 and self.epochs < 1):
            raise UserError(
                f"outer.steps={self.steps}, outer.epochs={self.epochs}: nothing to do; set one of them >= 1"
            )
        _refuse_negative("outer", lr=self.lr, rates_lr=self.rates_lr, weight_decay=self.weight_decay, clip=self.clip)
        _refuse_as_share("outer", beta1=self.beta1, beta2=self.beta2)
        _refuse_as_guard("outer", self.eps)
        if not 0 <= self.warmup < 1:
            raise UserError(f"outer.warmup={self.warmup}: it is a share of all steps; use a value in [0, 1)")
        if not 0 <= self.decay <= 1 - self.warmup:
            raise UserError(
                f"outer.decay={self.decay} with outer.warmup={self.warmup}: both are shares of all steps; use 0 to "
                f"{1 - self.warmup:g}"
            )
        if self.multiples and (self.multiples != sorted({*self.multiples}) or self.multiples[0] < 1 or not self.decay):
            raise UserError(
                f"outer.multiples={self.multiples} with outer.decay={self.decay}: give ascending whole numbers from 1 "
                "on, as [1,3,9], and the share of a branch's steps in which its rate falls, as outer.decay=0.1"
            )

    def total_steps(self, problems: int) -> int:
        """Outer steps of the whole run on a training split of `problems` problems."""
        steps = self.steps or max(1, self.epochs * problems // (self.batch_problems * self.accumulation))
        return steps * max(self.multiples, default=1)

    def warm_steps(self, total: int) -> int:
        """Outer steps of a run of `total` in which the rate rises."""
        return round(self.warmup * (total // max(self.multiples, default=1)))

    def branches(self, total: int) -> list[int]:
        """The smaller budgets of a study whose run has `total` outer steps, in steps."""
        return [total // self.multiples[-1] * each for each in self.multiples[:-1]]


def _refuse_negative(section: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{section}.{key}={value}: use a finite value of 0 or more")


def _refuse_as_share(section: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{section}.{key}={value}: it is the share of the past that is kept; use a value in [0, 1)")


def _refuse_as_guard(section: str, eps: float) -> None:
    if not 0 < eps < math.inf:
        raise UserError(f"{section}.eps={eps}: it keeps a division from being 0/0; use a small positive value")
