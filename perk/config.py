"""The schema: every key of `python -m perk.train`, its type, default and source."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from omegaconf import OmegaConf

from common.data.packed import Bounds
from common.data.splits import SPLITS
from common.engine.settings import InnerConfig, Schedule
from common.engine.settings import OuterConfig as CommonOuterConfig
from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED
from common.language.config import AnswersConfig, LoraConfig
from common.language.config import ModelConfig as CommonModelConfig
from common.run import budget  # noqa: F401 -- registers the resolver of conf/perk/budget
from common.run.schema import RunConfig
from perk.apis.config import ApisConfig
from perk.babilong.config import BabilongConfig
from perk.documents.config import DocumentsConfig, Kind
from perk.students.config import StudentsConfig


class Learner(StrEnum):
    """What answers the questions."""

    perk = "perk"
    """The context goes into the weights; the question is answered without it."""
    in_context = "in_context"
    """Context and question in one prompt: FT-ICR, and with fewer segments the retrieval baseline."""
    shortcuts = "shortcuts"
    """No network: chance, constants and searches for words."""


class Target(StrEnum):
    """What the outer loss asks for."""

    answer = "answer"
    support = "support"
    """The supporting facts, then the answer; the answer alone where none are known."""


class Labels(StrEnum):
    """Numbers of the segments in training; at test time they are in order."""

    ordered = "ordered"
    shuffled = "shuffled"
    """Drawn anew for every pass over the problems (the released code)."""


@dataclass
class MethodConfig:
    """One row of the tables."""

    name: str = "perk"
    title: str = "PERK"
    """The row's name in tables."""
    learner: Learner = Learner.perk
    target: Target = Target.support
    adapter: bool = True
    """What learns is LoRA (`model.lora`) on a frozen base; False: all weights."""
    token_weights: bool = True
    """Weigh the inner loss by token: a small network gives the weights, the outer loop trains it."""
    labels: Labels = Labels.ordered
    meta: bool = True
    """False trains without the inner loop, which then runs at test time only (plain test-time training)."""
    segments: int = 0
    """In-context learner: how many segments BM25 picks for a question; 0 gives all."""

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: a key has no meaning for the learner.
        """
        if self.segments < 0:
            raise UserError(f"method.segments={self.segments}: use 0 (all) or more")
        if self.learner is not Learner.perk and not self.meta:
            raise UserError(f"method.meta=false with method.learner={self.learner}: only perk has an inner loop")
        if self.learner is not Learner.in_context and self.segments:
            raise UserError(
                f"method.segments={self.segments} with method.learner={self.learner}: BM25 picks for in_context only; "
                "use 0"
            )


STARTS = ("default", "gaussian", "orthogonal")


@dataclass
class AdapterConfig(LoraConfig):
    """The memory: LoRA in peft's terms; the defaults are the paper's."""

    rank: int = 256
    alpha: int = 16
    dropout: float = 0.1
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    stabilised: bool = True
    """Scale by alpha / sqrt(rank) in place of alpha / rank."""
    top_layers: int = 0
    """Adapt only so many of the last layers; 0 adapts all. The paper: 4 of models of 7 and 8 billion parameters."""
    init: str = "default"
    """How A and B start: `default` (A uniform, B zero), `gaussian` (A normal, B zero) or `orthogonal` (neither zero).
    peft's other starts change the base."""

    def settings(self, layers: int) -> dict[str, Any]:
        """As in `LoraConfig`.

        Raises:
            UserError: the network has fewer layers than are to be adapted.
        """
        if not 0 <= self.top_layers <= layers:
            raise UserError(f"model.lora.top_layers={self.top_layers}: use 0 (all) to {layers}, which the model has")
        chosen = range(layers - self.top_layers, layers) if self.top_layers else None
        return {
            **super().settings(layers),
            "use_rslora": self.stabilised,
            "layers_to_transform": None if chosen is None else list(chosen),
            "init_lora_weights": True if self.init == "default" else self.init,
        }

    def __post_init__(self) -> None:
        """As in `LoraConfig`.

        Raises:
            UserError: also for an unknown start, or one that does not go with the rank.
        """
        super().__post_init__()
        if self.init not in STARTS:
            raise UserError(f"model.lora.init={self.init}: use one of {', '.join(STARTS)}")
        if self.init == "orthogonal" and self.rank % 2:
            raise UserError(f"model.lora.init=orthogonal with model.lora.rank={self.rank}: the rank must be even")


@dataclass
class ModelConfig(CommonModelConfig):
    """The language model."""

    name: str = "Qwen/Qwen2.5-0.5B"
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    positions: int = 0
    """Largest sequence that the in-context learner reads, in tokens; 0 is the model's own. For models with rotary
    positions (the paper: 131072 for contexts beyond 32K)."""
    yarn: float = 0.0
    """YaRN factor by which the in-context learner's rotary positions are stretched when a split is measured; training
    and the selection of the model have the model's own. 0 is off (the paper: 4)."""

    def adjust(self, settings: Any) -> None:
        """As in the common one, and positions.

        Raises:
            UserError: the model has no rotary positions.
        """
        super().adjust(settings)
        if not self.positions and not self.yarn:
            return
        rope = getattr(settings, "rope_parameters", None)
        if rope is None:
            raise UserError(
                f"model.positions={self.positions}, model.yarn={self.yarn}: {self.name} has no rotary positions; use 0"
            )
        own = settings.max_position_embeddings
        if self.yarn:
            more = {"rope_type": "yarn", "factor": self.yarn, "original_max_position_embeddings": own}
            settings.rope_parameters = {**rope, **more}
        settings.max_position_embeddings = self.positions or round(own * self.yarn)

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        super().__post_init__()
        if self.positions < 0 or (self.yarn and not 1 <= self.yarn < math.inf):
            raise UserError(
                f"model.positions={self.positions}, model.yarn={self.yarn}: use 0 (off), or a factor of 1 on"
            )


@dataclass
class OuterConfig(CommonOuterConfig):
    """The outer loop: the paper's values, and the released code's where it names none (beta2, clip, batch)."""

    lr: float = 1e-5
    rates_lr: float = 1e-5
    weight_decay: float = 0.01
    beta2: float = 0.95
    clip: float = 1.0
    warmup: float = 0.03
    batch_problems: int = 1
    accumulation: int = 1
    epochs: int = 2
    schedule: Schedule = Schedule.cosine


@dataclass
class TemplateConfig:
    """What a model reads and says; slots in braces."""

    label: str = "doc_{index}: "
    """Stands before a segment in the inner loop; given, not scored."""
    question: str = "{count} documents have been memorised.\nQuestion: {question}\nAnswer:"
    in_context: str = "{context}\nQuestion: {question}\nAnswer:"
    in_context_segment: str = "{text}\n"
    answer: str = " {answer}"
    support: str = " <support> {support} </support> <answer> {answer} </answer>"


APPENDED = "appended"
"""What items of memories that were written in two halves are told by."""


@dataclass
class EvaluationConfig(AnswersConfig):
    """How answers are produced and scored."""

    LEAST = AnswersConfig.LEAST | {"micro_batch": 0, "problems": 0}

    batch_problems: int = 8
    max_new_tokens: int = 512
    micro_batch: int = 0
    """Segments in one graph of the inner loop at test time: less memory, the same memory written; 0 takes all."""
    lengths: list[int] = field(default_factory=list)
    """Further lengths of test contexts, as `data.length`: metrics accuracy@length_<length>, of the own length too."""
    positions: list[str] = field(default_factory=list)
    """Further positions of the gold document or of the facts in the test split: metrics accuracy@position_<name>, of
    the own position too."""
    appended: bool = field(default=False, metadata=HASHED_IF_SET)
    """Ask the test split once more of memories that were written in two halves, the second appended to the first:
    metric accuracy@appended_halves."""
    problems: int = 0
    """Problems of a further length or position, the first ones of the split; 0 takes all."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        super().__post_init__()
        if min(self.lengths, default=16) < 16:
            raise UserError(f"evaluation.lengths={self.lengths}: use 16 tokens or more")


SHORTEST = 4
"""Tokens of a segment: with fewer there is no room for a word beside its label."""


class Task(StrEnum):
    """Which family of contexts and questions."""

    babilong = "babilong"
    students = "students"
    documents = "documents"
    apis = "apis"
    jsonl = "jsonl"
    """A user's own."""


@dataclass
class SplitFiles:
    """Files below `data.root`, in the official form; null where there is none."""

    train: str | None = None
    dev: str | None = None
    test: str | None = None


@dataclass
class DataConfig:
    """Problems of the three splits."""

    name: str = "qa1"
    task: Task = Task.babilong
    root: str | None = field(default=None, metadata=UNHASHED)
    """Folder of real data; default: the environment variable INNERLOOP_DATA."""
    files: SplitFiles = field(default_factory=SplitFiles)
    """With train null everything is generated. With dev or test null they are cut from train."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.75, "dev": 0.125, "test": 0.125})
    """Shares of stories, records, questions or APIs for splits that are cut from the train file."""
    count: dict[str, int] = field(default_factory=lambda: {"train": 5000, "dev": 200, "test": 1000})
    """Problems of each split; 0 takes every question of the files once. The paper states no numbers."""
    length: int = 8192
    """Tokens of a context; the paper's Table 5 is trained at 8K."""
    shrink: int = 1
    """Contexts and segments are so many times shorter than all lengths say, so that a small scale keeps the published
    lengths' names and ratios."""
    test_length: int = 0
    """Tokens of a context in the test split; 0 is `length`."""
    segment: int = 256
    """Tokens of a segment that is cut from running text; about 256 in the paper."""
    tokenizer: str = "words"
    """What tokens are: `words`, a folder with a tokenizer's files, or a hub name."""
    questions: int = 1
    """Questions asked of one context: of student records, and of generated BabiLong."""
    seed: int = 0
    """The training seed does not change the data."""
    version: int = field(default=1, metadata=HASHED_IF_SET)
    """Of what makes problems of files and settings, so that runs on others are not taken for equal. In 1 facts and
    titles did not count as tokens of a segment, and a distractor could hold an answer; today's: `perk.data.VERSION`."""
    bounds: Bounds = field(default_factory=Bounds, metadata=UNHASHED)
    cache: str | None = field(default=None, metadata=UNHASHED)
    """Folder where built splits are kept; null builds each problem when it is asked for."""
    export: str | None = field(default=None, metadata=UNHASHED)
    """With generated data: folder into which `python -m perk.data` writes them in the official form."""
    babilong: BabilongConfig = field(default_factory=BabilongConfig)
    students: StudentsConfig = field(default_factory=StudentsConfig)
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    apis: ApisConfig = field(default_factory=ApisConfig)
    templates: TemplateConfig = field(default_factory=TemplateConfig)

    def __post_init__(self) -> None:
        """Refuse values that cannot be built.

        Raises:
            UserError: a value is out of range, or does not go with another.
        """
        least_of = {"length": 16, "test_length": 0, "segment": 8, "questions": 1}
        for key, least in least_of.items():
            if getattr(self, key) < least:
                raise UserError(f"data.{key}={getattr(self, key)}: use {least} or more")
        if self.shrink < 1:
            raise UserError(f"data.shrink={self.shrink}: use 1 (lengths as they are) or more")
        if self.segment_tokens < SHORTEST:
            raise UserError(
                f"data.segment={self.segment} with data.shrink={self.shrink}: {self.segment_tokens} tokens; use "
                f"{SHORTEST * self.shrink} or more"
            )
        if self.segment_tokens > min(self.length_of("train"), self.length_of("test")):
            raise UserError(
                f"data.segment={self.segment}: longer than the context (data.length={self.length}, "
                f"data.test_length={self.test_length}, data.shrink={self.shrink})"
            )
        for name in ("count", "shares"):
            if strange := set(getattr(self, name)) - set(SPLITS):
                raise UserError(f"data.{name}: unknown split {sorted(strange)}; use {', '.join(SPLITS)}")
        if set(self.count) != set(SPLITS) or min(self.count.values()) < 0:
            raise UserError(f"data.count={self.count}: give a number from 0 on for each of {', '.join(SPLITS)}")
        several = self.task is Task.students or (self.task is Task.babilong and self.made)
        if self.questions > 1 and not several:
            origin = "generated" if self.made else "real"
            raise UserError(f"data.questions={self.questions}: {origin} {self.task} have one question a context; use 1")
        if self.made and self.task is not Task.jsonl and min(self.count.values()) < 1:
            raise UserError(f"data.count={self.count}: say how many to generate, at least 1 of each split")
        if not self.made and self.export:
            raise UserError(f"data.export={self.export}: only generated data are written; set data.files.train=null")
        for name in Task:
            if check := getattr(getattr(self, name.value, None), "validate", None):
                check(f"data.{name.value}")

    @property
    def made(self) -> bool:
        """Is everything but the haystack generated?"""
        return self.files.train is None

    @property
    def supported(self) -> bool | None:
        """Do its questions come with the facts that give the answer? None: some do."""
        if self.task in (Task.jsonl, Task.students):
            return None
        documents = self.task is Task.documents and (self.made or self.documents.kind is Kind.hotpotqa)
        return documents or self.task is Task.babilong

    @property
    def segment_tokens(self) -> int:
        """Tokens of a segment that is cut."""
        return self.segment // self.shrink

    def length_of(self, split: str) -> int:
        """Tokens of a context in `split`."""
        return (self.test_length or self.length if split == "test" else self.length) // self.shrink


@dataclass
class TrainConfig(RunConfig):
    """Everything the commands read."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    budget: list[dict[str, Any]] = field(default_factory=list, metadata=UNHASHED)
    """Numbers that `${budget:<name>}` takes (`common.run.budget`): what they become is hashed, they are not."""

    @property
    def network(self) -> ModelConfig:
        """`model` as the method takes it: without LoRA where all weights learn."""
        if self.method.adapter:
            return self.model
        return replace(self.model, lora=replace(self.model.lora, rank=0, targets=[], train=[]))

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: positions are to be stretched for a learner that never reads beyond a segment, or memories
                appended to of one that writes none.
        """
        if self.evaluation.appended and self.method.learner is not Learner.perk:
            raise UserError(
                f"evaluation.appended=true with method.learner={self.method.learner}: it writes no memory to append "
                "to; use false"
            )
        if self.model.yarn and self.method.learner is Learner.perk:
            raise UserError(
                f"model.yarn={self.model.yarn} with method.learner=perk: it reads segments and questions alone, whose "
                "positions would be rotated otherwise than in training; use 0"
            )


SCHEMAS = {"train": TrainConfig}
"""Command that makes runs -> what they are configured by."""


def kept_steps(length: int, shrink: int) -> int:
    """Inner steps that are unrolled exactly: two up to 4K tokens of context, one beyond (paper, appendix B)."""
    return 2 if length // max(1, shrink) <= 4096 else 1


OmegaConf.register_new_resolver("kept_steps", kept_steps, replace=True)
