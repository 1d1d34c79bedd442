"""Keys of slow learning, fast learning and what joins them (no torch: `--help` and `--cfg job` read this file).

What the paper leaves open is a key whose default is named as such; sections are those of arXiv 2410.23277.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from common.engine.settings import RuleName, Unroll
from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED


class Form(StrEnum):
    """What TEMP-LORA is trained on after a chunk."""

    clip = "clip"
    """Input and output as one clip, all of it noised, without action (Eq. 3)."""
    original = "original"
    """The output, given the clean input and the action: the form for text (Appendix E)."""


class Source(StrEnum):
    """Which pairs of chunks a fast step sees."""

    local = "local"
    """The last input and output (the paper's local learning rule)."""
    full = "full"
    """One of all pairs of the episode so far (Table 4, without the local learning rule)."""
    reservoir = "reservoir"
    """The last one and, every other draw, one of a few that are kept (ours)."""


class Moments(StrEnum):
    """What the rule's state does from chunk to chunk; the paper does not say."""

    keep = "keep"
    fresh = "fresh"


class Stage(StrEnum):
    """What follows slow learning."""

    none = "none"
    finetune = "finetune"
    """The same steps as in `loop` without a memory: the control that the paper lacks."""
    loop = "loop"
    """The slow-fast learning loop: Phi steps while stored Theta stay as they are (Algorithm 1b)."""
    meta = "meta"
    """The outer loss is differentiated through the fast steps (ours)."""


class Past(StrEnum):
    """What a new chunk is generated from."""

    chunk = "chunk"
    """The chunk before."""
    frame = "frame"
    """Its last frame alone (Table 4, without chunk input)."""


class Context(StrEnum):
    """What is given besides the past (`slowfast_vgen.baselines`)."""

    none = "none"
    longer = "longer"
    anchor = "anchor"
    retrieval = "retrieval"
    oracle = "oracle"


class Inner(StrEnum):
    """What the loop's memories are written from."""

    truth = "truth"
    samples = "samples"
    """The model's own chunks, as Algorithm 1(b) reads literally."""


class Control(StrEnum):
    """With which memory the test split is generated once more."""

    own = "own"
    swapped = "swapped"
    """That of another episode."""
    reset = "reset"
    """Dropped before the way back."""
    frozen = "frozen"
    """As it was after the first chunk."""
    none = "none"
    """No adapter at all."""
    samples = "samples"
    """Written from the model's own chunks, as in Algorithm 1(a); what is asked for stays the truth."""


@dataclass
class OptimiserConfig:
    """AdamW over weights, with a warm-up and a cosine down to 0. The paper: Adam, nothing else reported."""

    lr: float = 5e-6
    """Appendix D.1."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 0.0
    """Largest global norm of the gradient; 0 does not clip."""
    warmup: float = 0.0
    """Share of the steps in which the rate rises."""


@dataclass
class SlowConfig(OptimiserConfig):
    """Slow learning: clips of two chunks, the second one generated (Section 3.1.1, Eq. 2)."""

    steps: int = 15000
    """Not reported; about ten passes over 200,000 clips."""
    batch: int = 128
    """Appendix D.1."""
    no_past: float = 0.2
    """Share of clips of which no frame is given: what fast learning trains on must be known, or it teaches the mode."""
    one_frame: float = 0.0
    """Share of clips of which the last frame of the past is given; the paper does so for robots."""
    action_dropout: float = 0.1
    """Share of the other clips that lose their action; not reported."""
    ema: float = 0.0
    """How much of their running mean a step keeps, at most; 0 has no mean. Not reported."""
    walk: int = 6
    """Chunks of a clip where something is given besides the past (method.context); else two."""
    run: str | None = field(default=None, metadata=UNHASHED)
    """Folder of a run of equal settings whose slow weights are taken: the same numbers sooner. Knows `${seed}`."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            UserError: a value is out of range.
        """
        check_optimiser("slow", self)
        for key, least in {"steps": 1, "batch": 1, "walk": 3}.items():
            if getattr(self, key) < least:
                raise UserError(f"slow.{key}={getattr(self, key)}: use {least} or more")
        for key in ("no_past", "one_frame", "action_dropout"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"slow.{key}={getattr(self, key)}: it is a share; use 0 to 1")
        if self.no_past + self.one_frame > 1:
            alone, one = self.no_past, self.one_frame
            raise UserError(f"slow.no_past={alone} with slow.one_frame={one}: shares of one whole; lower one")
        if not 0 <= self.ema < 1:
            raise UserError(f"slow.ema={self.ema}: it is the share of the past that is kept; use a value in [0, 1)")


@dataclass
class FastConfig:
    """Fast learning: TEMP-LORA (Section 3.2, Eq. 3, Appendix B.2)."""

    form: Form = Form.clip
    steps: int = 1
    """After every chunk. Not reported; Algorithm 1(a) shows one."""
    draws: int = 1
    """Draws of noise whose mean is one step's loss."""
    lr: float = 1e-4
    """Appendix D.1."""
    rule: RuleName = RuleName.adamw
    """Adam in the paper: AdamW without decay."""
    eps: float = 1e-8
    state: Moments = Moments.keep
    source: Source = Source.local
    kept: int = 4
    """source=reservoir: pairs that are kept."""
    layers: list[str] = field(default_factory=list)
    """Shell patterns of the layers with an adapter. Not reported; [] takes the temporal ones of the network."""
    rank: int = 32
    """Appendix D.1."""
    alpha: float | None = None
    """The adapter is scaled by alpha / rank. Not reported; null is rank."""
    weights: list[str] = field(default_factory=lambda: ["A", "B"])
    """Which factors are fast; A alone would have no effect while B is 0."""
    on_return: bool = False
    """Write on the way back, too; false writes on the way out and reads on the way back, in training and test."""
    learned: bool = False
    """Rates of the fast steps, a tensor each, learn in the outer loop (method=meta)."""
    first_move: float | None = None
    """learned=true: rates start where the first step moves each tensor by so much (root mean square); null is lr."""

    def __post_init__(self) -> None:
        """Refuse values that write nothing.

        Raises:
            UserError: a value is out of range, or contradicts another.
        """
        for key, least in {"steps": 1, "draws": 1, "rank": 1, "kept": 1}.items():
            if getattr(self, key) < least:
                raise UserError(f"fast.{key}={getattr(self, key)}: use {least} or more")
        for key in ("lr", "eps", "alpha", "first_move"):
            if (value := getattr(self, key)) is not None and not 0 < value < math.inf:
                raise UserError(f"fast.{key}={value}: use a number above 0")
        if sorted(self.weights) not in (["A", "B"], ["B"]):
            raise UserError(f"fast.weights={self.weights}: use [A,B] or [B]; A alone has no effect while B is 0")
        if self.first_move is not None and not self.learned:
            move = self.first_move
            raise UserError(f"fast.first_move={move} with fast.learned=false: it starts learned rates; use null")


@dataclass
class OuterConfig(OptimiserConfig):
    """What follows slow learning: outer steps over episodes, and what of an episode the outer loss counts."""

    steps: int = 1000
    """Of the loop: rounds. Not reported."""
    episodes: int = 16
    """Of a step; of the loop: of a round."""
    length: int = 2
    """Chunks out, before the way back."""
    families: list[str] = field(default_factory=lambda: ["out_and_back"])
    """Taken in turn, a family a step."""
    replay: int = 1
    """Draws of noise of chunks that the window still shows."""
    returns: int = 2
    """Draws of noise of chunks whose place has left the window."""
    new: int = 0
    """Draws of noise of chunks of new places, with the memory there: against imagined episodes that collapse."""
    shift: float = 1.0
    """Of the times of the outer loss, as `diffusion.shift`: which picture it is, is settled where noise is strong."""
    rates_lr: float = 1e-2
    """Of the logarithms of learned fast rates."""
    adapter: bool = field(default=True, metadata=HASHED_IF_SET)
    """method=meta with B alone fast: A learns, too; false leaves it as the loop does."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            UserError: a value is out of range.
        """
        check_optimiser("outer", self)
        for key, low in {"steps": 1, "episodes": 2, "length": 1, "replay": 0, "returns": 0, "new": 0}.items():
            if getattr(self, key) < low:
                raise UserError(f"outer.{key}={getattr(self, key)}: use {low} or more")
        if not self.replay + self.returns + self.new:
            raise UserError("outer.replay=0, outer.returns=0, outer.new=0: no chunk is scored; use 1 for one of them")
        if not self.families:
            raise UserError("outer.families=[]: no episode to learn from; use [out_and_back]")
        if not 0 < self.shift < math.inf:
            raise UserError(f"outer.shift={self.shift}: use a number above 0; 1 shifts nothing")


@dataclass
class ConsolidateConfig:
    """The slow-fast learning loop (Algorithm 1b)."""

    inner: Inner = Inner.truth
    """Not said: stored targets are the truth, and Algorithm 1(a), which writes the memories, samples."""
    batch: int = 16
    """Triples of one slow step."""
    budget_mb: int = 512
    """Stored memories beyond it lie on disk, in the run's folder."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            UserError: a value is out of range.
        """
        for key, least in {"batch": 1, "budget_mb": 0}.items():
            if getattr(self, key) < least:
                raise UserError(f"consolidate.{key}={getattr(self, key)}: use {least} or more")


@dataclass
class UnrollConfig:
    """How far the outer gradient passes through the fast steps (method=meta)."""

    unroll: Unroll = Unroll.stored

    def __post_init__(self) -> None:
        """Refuse what has no outer gradient, or needs a number that is not here.

        Raises:
            UserError: names the ways that work.
        """
        if self.unroll not in (Unroll.stored, Unroll.recompute, Unroll.first_order):
            raise UserError(f"inner.unroll={self.unroll}: use stored, recompute or first_order")


def check_optimiser(section: str, config: OptimiserConfig) -> None:
    """Refuse an optimiser that cannot step.

    Raises:
        UserError: a value is out of range.
    """
    for key in ("lr", "weight_decay", "clip"):
        if not 0 <= getattr(config, key) < math.inf:
            raise UserError(f"{section}.{key}={getattr(config, key)}: use a finite value of 0 or more")
    for key in ("beta1", "beta2", "warmup"):
        if not 0 <= getattr(config, key) < 1:
            raise UserError(f"{section}.{key}={getattr(config, key)}: use a value in [0, 1)")
    if not 0 < config.eps < math.inf:
        raise UserError(f"{section}.eps={config.eps}: it keeps a division from being 0/0; use a small positive value")
