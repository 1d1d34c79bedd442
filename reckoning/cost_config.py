"""Every key of `python -m reckoning.cost`; a module of its own, so that the processes of a sweep can import it."""

from dataclasses import dataclass, field

from common.engine.settings import InnerConfig, Kernels
from common.errors import UserError
from common.fields import HASHED_IF_SET, UNNAMED
from common.language.config import ModelConfig
from common.run.schema import RunConfig, RuntimeConfig


@dataclass
class ShapeConfig:
    """Sizes of a GPT-2 of random weights, measured in place of model.name: no figure depends on the weights."""

    layers: int = 0
    """0: model.name is measured."""
    width: int = 256
    heads: int = 4
    vocabulary: int = 50257

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit.

        Raises:
            UserError: a size is out of range, or the heads do not divide the width.
        """
        if self.layers < 0 or min(self.width, self.heads) < 1 or self.width % self.heads:
            raise UserError(
                f"shape.layers={self.layers}, shape.width={self.width}, shape.heads={self.heads}: use 0 (off) or more "
                "layers, and a width that the heads divide"
            )


@dataclass
class CostRuntime(RuntimeConfig):
    """Where times are measured, all of which changes them."""

    threads: int = field(default=1, metadata=HASHED_IF_SET)
    deterministic: bool = field(default=True, metadata=HASHED_IF_SET)
    kernels: Kernels = field(default=Kernels.auto, metadata=HASHED_IF_SET)
    capture: bool = field(default=False, metadata=HASHED_IF_SET)


@dataclass
class CostConfig(RunConfig):
    """What `python -m reckoning.cost` reads."""

    experiment: str = field(default="run_time", metadata=UNNAMED)
    runtime: CostRuntime = field(default_factory=CostRuntime)
    model: ModelConfig = field(default_factory=ModelConfig)
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    """How RECKONING reads; inner.steps is N."""
    tokens: int = 1024
    """Of an example: knowledge, one question of 7 and its answer of 1."""
    facts: int = 8
    questions: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 18, 32, 64])
    reread_most: int = 18
    """Reading all again is measured up to so many questions: every one costs the same."""
    repeats: int = 20
    """Rounds through all points; the median counts."""
    warmup: int = 2
    """Rounds before them."""
    confidence: float = 0.95
    threads: int = 1
    """runtime.threads once more, as the hash of all runs has it."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be measured.

        Raises:
            UserError: a value is out of range.
        """
        if len(set(self.questions)) < 2 or min(self.questions) < 1:
            raise UserError(f"questions={self.questions}: two different numbers from 1 on are needed for a line")
        if self.reread_most < sorted(set(self.questions))[1]:
            raise UserError(f"reread_most={self.reread_most}: at least two of questions={self.questions} are needed")
        if self.threads != self.runtime.threads:
            raise UserError(f"threads={self.threads}: set runtime.threads={self.threads} in its place")
        for key, least in {"facts": 1, "repeats": 1, "warmup": 0}.items():
            if getattr(self, key) < least:
                raise UserError(f"{key}={getattr(self, key)}: use {least} or more")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence}: it is a probability; use 0.95 or 0.99")
