"""The schema: every key of `python -m slowfast_vgen.train`, its type, default and source."""

from dataclasses import dataclass, field

from common.engine.settings import RuleName
from common.errors import UserError
from common.fields import HASHED_IF_SET
from common.run.schema import Precision, RunConfig
from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction
from slowfast_vgen.latents.config import LatentsConfig
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.networks.config import ModelConfig
from slowfast_vgen.settings import (
    ConsolidateConfig,
    Context,
    Control,
    FastConfig,
    Form,
    OuterConfig,
    Past,
    SlowConfig,
    Source,
    Stage,
    UnrollConfig,
)
from slowfast_vgen.worlds.config import DataConfig


@dataclass
class MethodConfig:
    """One row of the tables."""

    name: str = "temp_lora"
    title: str = "TEMP-LORA"
    memory: bool = True
    """Learn fast while an episode is generated."""
    stage: Stage = Stage.none
    """What follows slow learning."""
    past: Past = Past.chunk
    context: Context = Context.none
    """What else is in the window: baselines that remember without learning fast."""
    copies: bool = field(default=False, metadata=HASHED_IF_SET)
    """A new chunk is the last frame before it, over and over; nothing is trained."""


@dataclass
class EvaluationConfig:
    """How much of dev and test is generated, and with which memories."""

    dev: int = 128
    """Episodes of the dev split that select."""
    test: int = 512
    """Episodes of the test split."""
    family: str = "out_and_back"
    length: int | None = None
    """Chunks out; null is that of training, `outer.length`."""
    longer: list[int] = field(default_factory=list)
    """Further lengths at which the test split is generated: accuracy by gap beyond the trained length."""
    controls: list[Control] = field(default_factory=lambda: [Control.swapped, Control.reset, Control.frozen])
    """Further passes over the test split, each with another memory than the episode's own."""
    imagined: bool = False
    """Also episodes that are generated from their first chunk on: do they agree with themselves?"""
    videos: int = field(default=0, metadata=HASHED_IF_SET)
    """Long test videos, generated from their first chunk on: scene cuts, SRC, actions, cost (`slowfast_vgen.long`);
    with them LPIPS and FVD of the test chunks, and plans. 0: none of these."""
    ahead: int = field(default=0, metadata=HASHED_IF_SET)
    """Clips of each split, of recordings at most, whose next chunk is foreseen frame by frame (`horizons.py`)."""
    imagined_length: int | None = field(default=None, metadata=HASHED_IF_SET)
    """Chunks out of these; null is `length`. Of three, a place is come back to that was generated itself."""
    guidance: float = 1.0
    """Classifier-free guidance by the action; 1 is none. Not reported."""
    batch: int = 128
    """Episodes at once: one stack of memories."""
    confidence: float = 0.95
    patience: int = 0
    """Stop after so many dev evaluations without improvement; 0 never."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        least = {"dev": 2, "test": 2, "batch": 2, "patience": 0, "length": 1, "imagined_length": 1, "ahead": 0}
        least |= {"videos": 0}
        for key, low in least.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise UserError(f"evaluation.{key}={value}: use {low} or more")
        if not 0 < self.confidence < 1:
            raise UserError(f"evaluation.confidence={self.confidence}: it is a probability; use 0.95, say")
        if self.videos == 1:
            raise UserError("evaluation.videos=1: an interval needs two; use 0 for none, or 2 or more")
        if self.longer and min(self.longer) < 1:
            raise UserError(f"evaluation.longer={self.longer}: lengths of 1 or more")


@dataclass
class TrainConfig(RunConfig):
    """Everything the commands read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    slow: SlowConfig = field(default_factory=SlowConfig)
    fast: FastConfig = field(default_factory=FastConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    inner: UnrollConfig = field(default_factory=UnrollConfig)
    consolidate: ConsolidateConfig = field(default_factory=ConsolidateConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig, metadata=HASHED_IF_SET)
    """Of the metrics that `evaluation.videos` asks for."""

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: a clip beyond the window, a memory that is asked for and not there, or the other way round.
        """
        if self.runtime.dtype is not Precision.float32 or self.runtime.autocast:
            raise UserError(
                f"runtime.dtype={self.runtime.dtype}, runtime.autocast={str(self.runtime.autocast).lower()}: latents "
                "are float32 here, and so is the network; use runtime.dtype=float32 runtime.autocast=false"
            )
        chunk, stage = self.data.shape.chunk, self.method.stage
        frames, beside = (2 + (self.method.context is not Context.none)) * chunk, self.method.context
        if frames > self.model.window:
            more = "" if beside is Context.none else f", with method.context={beside},"
            raise UserError(
                f"model.window={self.model.window} with chunks of {chunk} frames: past and new chunk{more} are "
                f"{frames} frames; use model.window={frames} or more, or a smaller data.chunk"
            )
        if beside is not Context.none and (self.method.past is Past.frame or self.method.memory):
            raise UserError(
                f"method.context={beside} is a baseline without memory that is given whole chunks; use "
                "method.memory=false and method.past=chunk"
            )
        if self.method.copies and (self.method.memory or stage is not Stage.none):
            raise UserError(
                f"method.copies=true with method.memory={str(self.method.memory).lower()}, method.stage={stage}: "
                "nothing learns; use method=copy"
            )
        if stage in (Stage.loop, Stage.meta) and not self.method.memory:
            raise UserError(f"method.stage={stage} with method.memory=false: it learns with memories; use finetune")
        if self.fast.learned and stage is not Stage.meta:
            raise UserError(
                f"fast.learned=true with method.stage={stage}: nothing learns the rates; use fast.learned=false"
            )
        if self.method.past is Past.frame and self.slow.one_frame == 0:
            raise UserError(
                "method.past=frame with slow.one_frame=0: no clip of one given frame is trained; use slow.one_frame=0.4"
            )

    @property
    def length(self) -> int:
        """Chunks out of a tested episode."""
        return self.outer.length if self.evaluation.length is None else self.evaluation.length

    @property
    def slow_steps(self) -> int:
        """Steps of slow learning."""
        return 0 if self.method.copies else self.slow.steps

    @property
    def clip(self) -> int:
        """Chunks of a clip of slow learning."""
        return 2 if self.method.context is Context.none else self.slow.walk

    @property
    def outer_steps(self) -> int:
        """Steps after slow learning."""
        return 0 if self.method.stage is Stage.none else self.outer.steps

    @property
    def faithful(self) -> bool:
        """Is it the paper's method as far as it is described: no help for small sizes, nothing of ours, no baseline?

        What fast learning would do counts only where there is any.
        """
        fast, method = self.fast, self.method
        slow = (
            self.diffusion.kind is Prediction.eps,
            not (self.model.mask_channel or self.model.frame_times),
            method.stage in (Stage.none, Stage.loop),
            method.past is Past.chunk and method.context is Context.none and not method.copies,
        )
        written = (
            fast.rule is RuleName.adamw,
            fast.rank == 32,
            fast.steps == fast.draws == 1,
            fast.form is Form.clip,
            fast.source is Source.local,
            not fast.learned,
        )
        return all(slow) and (all(written) or not method.memory)


SCHEMAS = {"train": TrainConfig}
"""Command that makes runs -> what they are configured by."""
