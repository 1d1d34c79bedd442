"""The schema: every key of `python -m reckoning.train`, its type, default and source."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import OmegaConf

from common.data.packed import Bounds
from common.engine.settings import InnerConfig, OuterConfig
from common.errors import UserError
from common.fields import UNHASHED
from common.language.config import AnswersConfig, ModelConfig
from common.run import budget  # noqa: F401 -- registers the resolver of conf/reckoning/budget
from common.run.schema import RunConfig
from reckoning.clutrr.config import ClutrrConfig
from reckoning.cost_config import CostConfig
from reckoning.proofwriter.config import GeneratorConfig


class Learner(StrEnum):
    """What answers the questions."""

    reckoning = "reckoning"
    """The knowledge goes into the weights; the question is answered without it."""
    in_context = "in_context"
    """Knowledge and question in one context: FT-ICR and the sanity baselines."""
    shortcuts = "shortcuts"
    """No network: chance, majority, fixed rules, bag-of-words classifiers."""


class Knowledge(StrEnum):
    """Which sentences the learner is given."""

    given = "given"
    none = "none"
    random = "random"
    """As many sentences, drawn with replacement from all of the split."""


class Target(StrEnum):
    """What the outer loss asks for (paper, section 4.1)."""

    single = "single"
    """The answer."""
    multi = "multi"
    """One string: the answer and the facts that matter, mean over all its tokens (the code's form; default)."""
    sum = "sum"
    """The answer's loss plus the relevant facts' own language-modelling loss (the paper's equation 5, literally)."""


@dataclass
class MethodConfig:
    """One row of Table 1."""

    name: str = "reckoning"
    title: str = "RECKONING"
    """The row's name in tables."""
    learner: Learner = Learner.reckoning
    knowledge: Knowledge = Knowledge.given
    question: bool = True
    """False leaves the question out (No-Question)."""
    target: Target = Target.multi
    answer_weight: float = 1.0
    """Weight of an answer's token in the mean over its target string, where a recited token weighs 1 (code: 1)."""
    reshuffle: bool = False
    """Give the facts of a training problem in another order at every pass over the training split."""
    meta: bool = True
    """RECKONING: False trains without the inner loop, which then runs at test time only (plain fine-tuning on the
    knowledge)."""

    def __post_init__(self) -> None:
        """Refuse impossible combinations.

        Raises:
            UserError: the learner cannot do without knowledge or question, or has no such target.
        """
        if not 0 < self.answer_weight < math.inf:
            raise UserError(
                f"method.answer_weight={self.answer_weight}: use a positive, finite number; 1 weighs all alike"
            )
        if self.learner is Learner.reckoning and (self.knowledge is Knowledge.none or not self.question):
            raise UserError(
                f"method.learner=reckoning with method.knowledge={self.knowledge}, method.question={self.question}: "
                "the inner loop needs knowledge and the outer loop a question; use method.learner=in_context"
            )
        if self.learner is not Learner.reckoning and not self.meta:
            raise UserError(
                f"method.meta=false with method.learner={self.learner}: only reckoning has an inner loop; remove it"
            )
        if self.learner is Learner.in_context and self.target is Target.sum:
            raise UserError("method.target=sum is an outer loss of RECKONING; use single or multi with in_context")
        if self.knowledge is Knowledge.none and not self.question:
            raise UserError(
                "method.knowledge=none with method.question=false: nothing is left to read; keep one of them"
            )


@dataclass
class TemplateConfig:
    """The strings of the released code; slots in braces."""

    fact: str = "fact_{index}: {fact}"
    """Inner row; what stands before {fact} is given, not scored."""
    reference: str = "fact_{index}"
    question: str = "Based on {references}, can we conclude {question}?"
    in_context_question: str = "Can we conclude {question}?"
    """FT-ICR's question. Its context lines show no index, so ours has no references; the released code had the bare
    "{question}" (November 2023) or RECKONING's own question (May 2023)."""
    multi_target: str = "{answer} because {facts}"


@dataclass
class SplitFiles:
    """Files below `data.root`; null where there is none."""

    train: str | None = None
    dev: str | None = None
    test: str | None = None


class Format(StrEnum):
    """How problems are read or made."""

    generated = "generated"
    """Our own ProofWriter-style theories; no file needed."""
    proofwriter = "proofwriter"
    """Official ProofWriter release files with proofs (also what the generator writes)."""
    choices = "choices"
    """One multiple-choice question a line: id, context, question, options, answer."""
    folio = "folio"
    """FOLIO v0.0: premises, conclusion and label."""
    prontoqa = "prontoqa"
    """ProntoQA in the multiple-choice form, with the proof of every answer."""
    pararule_plus = "pararule_plus"
    """PARARULE-Plus: a context and several questions a line, closed world."""
    jsonl = "jsonl"
    """Own data: one object a line with facts and a question with its answer, or several."""
    clutrr = "clutrr"
    """Our own kinship stories; no file needed."""
    clutrr_text = "clutrr_text"
    """Original CLUTRR-SG files, one story a line behind <STORY> <QUERY> <PROOF> <ANSWER>."""
    clutrr_csv = "clutrr_csv"
    """CLUTRR sets as its generator writes them, one story a row."""

    @property
    def made(self) -> bool:
        """Are the problems made to order, as many as `data.theories` says?"""
        return self in (Format.generated, Format.clutrr)


class Variant(StrEnum):
    """How problems are chosen from a theory."""

    published = "published"
    """The authors' recipe with its balancing (their notebooks)."""
    repaired = "repaired"
    """Shortcut-free: one knowledge set, matched questions that differ in the subject alone."""


class Alternative(StrEnum):
    """Which of several proofs joined by OR is taken."""

    first = "first"
    longest = "longest"
    shortest = "shortest"
    union = "union"
    """The sentences of all of them."""
    skip = "skip"
    """No such question."""


class Order(StrEnum):
    """Order of the given sentences."""

    shuffled = "shuffled"
    relevant_first = "relevant_first"
    distractors_first = "distractors_first"


SPLITS = ("train", "dev", "test")


@dataclass
class DataConfig:
    """Problems of the three splits."""

    name: str = "owa_proof_3_hop"
    format: Format = Format.proofwriter
    root: str | None = field(default=None, metadata=UNHASHED)
    """Folder of real data; default: the environment variable INNERLOOP_DATA."""
    files: SplitFiles = field(default_factory=SplitFiles)
    support: SplitFiles = field(default_factory=SplitFiles)
    """With format=choices: files that name the supporting sentences."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.7, "dev": 0.15, "test": 0.15})
    """Shares of theories for the splits cut from the train file, where their own file is null."""
    labels: dict[str, str] | None = None
    """Label in the data -> word the model says; null takes any label as it is."""
    variant: Variant = Variant.published
    alternative: Alternative = Alternative.first
    distractors: str = "0"
    """Further sentences of the same theory: 0, 2, 4, 6 or all. A theory planted by `generator.shape` has those of
    `generator.distractors`; +experiment=proofwriter_repaired sets both."""
    order: Order = Order.shuffled
    balance: bool = True
    """With the published variant: draw as many true and false questions as there are unknown ones."""
    hops: int | None = None
    """Which of the official depth sets: 2, 3 or 5. CLUTRR: facts of a training and dev story; the paper has 2, 4, 6."""
    test_hops: int | None = None
    """ProofWriter: test on another depth set than the one that is trained on; null is the same."""
    check_counts: bool = False
    """Insist on the published sizes of ProofWriter's depth sets (`proofwriter/counts.yaml`) or of FOLIO's release."""
    questions_per_set: int = 1
    """Questions answered from one adapted model in a training problem."""
    copies: int = 1
    """How often every training problem is there: as it is, then with its sentences in other orders (FOLIO: 5)."""
    seed: int = 0
    """Seed of generated theories, sampling and order; the training seed does not change the data."""
    theories: dict[str, int] = field(default_factory=lambda: {"train": 4000, "dev": 200, "test": 400})
    """Generated theories, or kinship stories, per split."""
    curriculum: list[int] = field(default_factory=list)
    """Depths that generated training theories have besides `generator.depths`, e.g. [0] for stated facts."""
    limit: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Use only the first so many problems of a split; 0 uses all."""
    bounds: Bounds = field(default_factory=Bounds, metadata=UNHASHED)
    cache: str | None = field(default=None, metadata=UNHASHED)
    """Folder where built splits are kept; null builds them anew each time."""
    export: str | None = field(default=None, metadata=UNHASHED)
    """With format=generated: folder into which `python -m reckoning.data` writes them in the official format."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    clutrr: ClutrrConfig = field(default_factory=ClutrrConfig)
    templates: TemplateConfig = field(default_factory=TemplateConfig)

    def __post_init__(self) -> None:
        """Refuse values that no reader knows.

        Raises:
            UserError: a value is not among the choices, or shares do not add up.
        """
        if self.distractors not in ("0", "2", "4", "6", "all"):
            raise UserError(f"data.distractors={self.distractors}: use 0, 2, 4, 6 or all")
        if self.questions_per_set < 1:
            raise UserError(f"data.questions_per_set={self.questions_per_set}: use 1 or more")
        if self.copies < 1:
            raise UserError(f"data.copies={self.copies}: use 1 (every training problem once) or more")
        if strange := set(self.limit) - set(SPLITS):
            raise UserError(f"data.limit: unknown split {sorted(strange)}; use {', '.join(SPLITS)}")
        if min(self.limit.values(), default=0) < 0:
            raise UserError(f"data.limit={self.limit}: use 0 for all problems of a split, or a number of them")
        if self.check_counts and (
            self.variant is not Variant.published or not self.balance or any(self.limit.values())
        ):
            raise UserError(
                "data.check_counts=true holds for the published recipe only; set it to false with "
                "data.variant=repaired, data.balance=false or data.limit"
            )
        if self.format is Format.generated:
            self.generator.validate("data.generator")
            own = str(self.generator.distractors)
            if self.variant is Variant.repaired and self.generator.planted and self.distractors not in ("0", own):
                raise UserError(
                    f"data.distractors={self.distractors} with data.generator.distractors={own}: a planted theory is "
                    f"asked as it is; set data.generator.distractors={self.distractors.replace('all', '<number>')}"
                )
        if self.format is Format.clutrr:
            self.clutrr.validate(self.hops, self.distractors)
        if self.format is Format.clutrr_text and self.hops is None:
            raise UserError("data.hops=null: it says which original files to train on; use 2, 4 or 6")
        if self.format in (Format.clutrr_text, Format.clutrr_csv) and self.distractors != "0":
            have = "have none" if self.format is Format.clutrr_text else "have their own or none"
            raise UserError(
                f"data.distractors={self.distractors} with data.format={self.format}: the files {have}; use "
                "generated stories, data=clutrr_cpu"
            )


@dataclass
class EvaluationConfig(AnswersConfig):
    """How answers are produced and scored."""

    LEAST = AnswersConfig.LEAST | {"questions_per_set": 0}

    max_new_tokens: int = 128
    """Longest answer at test time, in tokens; the gold target's length, the released code's limit, is never used.
    Where the dev split only selects a model by its label, answers are as long as the longest label needs."""
    questions_per_set: int = 0
    """Questions answered from one adapted model at test time; 0 answers all about a knowledge set."""
    fact_recall: bool = True
    """RECKONING at the end: how well every fact is known before and after encoding (fact_exact_*, fact_loss_*)."""


@dataclass
class TrainConfig(RunConfig):
    """Everything `python -m reckoning.train` reads."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    budget: list[dict[str, Any]] = field(default_factory=list, metadata=UNHASHED)
    """Numbers that `${budget:<name>}` takes (`common.run.budget`): what they become is hashed, they are not."""


SCHEMAS = {"train": TrainConfig, "cost": CostConfig}
"""Command that makes runs -> what they are configured by."""


def inner_steps(hops: int | None) -> int:
    """The paper's number of inner steps: 4 for two to four hops, 5 for more (its appendix C)."""
    return 5 if hops is not None and hops > 4 else 4


OmegaConf.register_new_resolver("inner_steps", inner_steps, replace=True)
