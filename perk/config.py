"""Room 1, the schema: every key of `python -m perk.data`, its type, default and source."""

from dataclasses import dataclass, field
from enum import StrEnum

import common.run_name  # noqa: F401 - registers the resolver that names run folders
from common.errors import UserError
from common.schema import LoopConfig, RuntimeConfig, TrackerConfig
from common.splits import SPLITS
from perk.apis.config import ApisConfig
from perk.babilong.config import BabilongConfig
from perk.documents.config import DocumentsConfig
from perk.students.config import StudentsConfig


class Task(StrEnum):
    """Which family of contexts and questions."""

    babilong = "babilong"
    students = "students"
    documents = "documents"
    apis = "apis"


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
    root: str | None = None
    """Folder of real data; default: the environment variable INNERLOOP_DATA."""
    files: SplitFiles = field(default_factory=SplitFiles)
    """With train null everything is generated. With dev or test null they are cut from train."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.75, "dev": 0.125, "test": 0.125})
    """Shares of stories, records, questions or APIs for splits that are cut from the train file."""
    count: dict[str, int] = field(default_factory=lambda: {"train": 5000, "dev": 200, "test": 1000})
    """Problems of each split; 0 takes every question of the files once. The paper states no numbers."""
    length: int = 8192
    """Tokens of a context (sheet section 2.5)."""
    test_length: int = 0
    """Tokens of a context in the test split; 0 is `length`."""
    segment: int = 256
    """Tokens of a segment that is cut from running text (sheet section 1.7)."""
    tokenizer: str = "words"
    """What tokens are: `words`, a folder with a tokenizer's files, or a hub name."""
    questions: int = 1
    """Questions asked of one context: of student records, and of generated BabiLong."""
    seed: int = 0
    """The training seed does not change the data."""
    cache: str | None = None
    """Folder where built splits are kept; null builds each problem when it is asked for."""
    export: str | None = None
    """With generated data: folder into which `python -m perk.data` writes them in the official form."""
    babilong: BabilongConfig = field(default_factory=BabilongConfig)
    students: StudentsConfig = field(default_factory=StudentsConfig)
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    apis: ApisConfig = field(default_factory=ApisConfig)

    def __post_init__(self) -> None:
        """Refuse values that cannot be built.

        Raises:
            UserError: a value is out of range, or does not go with another.
        """
        least_of = {"length": 16, "test_length": 0, "segment": 8, "questions": 1}
        for key, least in least_of.items():
            if getattr(self, key) < least:
                raise UserError(f"data.{key}={getattr(self, key)}: use {least} or more")
        if self.segment > min(self.length, self.test_length or self.length):
            raise UserError(f"data.segment={self.segment}: longer than the context (data.length={self.length})")
        for name in ("count", "shares"):
            if strange := set(getattr(self, name)) - set(SPLITS):
                raise UserError(f"data.{name}: unknown split {sorted(strange)}; use {', '.join(SPLITS)}")
        if set(self.count) != set(SPLITS) or min(self.count.values()) < 0:
            raise UserError(f"data.count={self.count}: give a number from 0 on for each of {', '.join(SPLITS)}")
        several = self.task is Task.students or (self.task is Task.babilong and self.made)
        if self.questions > 1 and not several:
            origin = "generated" if self.made else "real"
            raise UserError(f"data.questions={self.questions}: {origin} {self.task} have one question a context; use 1")
        if self.made and min(self.count.values()) < 1:
            raise UserError(f"data.count={self.count}: say how many to generate, at least 1 of each split")
        if not self.made and self.export:
            raise UserError(f"data.export={self.export}: only generated data are written; set data.files.train=null")
        for name in Task:
            part = getattr(self, name.value)
            if hasattr(part, "validate"):
                part.validate(f"data.{name.value}")

    @property
    def made(self) -> bool:
        """Is everything but the haystack generated?"""
        return self.files.train is None

    def shares_of(self, missing: list[str]) -> dict[str, float]:
        """The shares in which the train file is cut where the files of `missing` splits are not there."""
        wanted = {split: self.shares.get(split, 0.0) for split in ("train", *missing)}
        return {split: share / sum(wanted.values()) for split, share in wanted.items()}

    def length_of(self, split: str) -> int:
        """Tokens of a context in `split`."""
        return self.test_length or self.length if split == "test" else self.length


@dataclass
class TrainConfig:
    """Everything the commands read."""

    experiment: str = "none"
    """Set by the experiment file."""
    scale: str = "paper"
    """Set by the scale file: paper or cpu."""
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
