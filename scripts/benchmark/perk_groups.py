"""What PERK's benchmark measures: groups of cases at the sizes that a machine carries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from common.engine.settings import Unroll
from common.errors import UserError
from scripts.benchmark.perk_notes import answering_lines, flat_note, retained_notes
from scripts.benchmark.running import AnyCase, Group, Results, Row, block

STEPS = 4
"""N, inner steps."""
HIGHER = "higher"
FT_ICR, PERK = "ft_icr", "perk"
ACCUMULATIONS = (1, 2, 4, 8, 16)
GROWTH = 8
"""So many times the shortest context is read with as many groups in the same memory."""


@dataclass(frozen=True)
class Size:
    """A model with the shape of Qwen2, and what is read."""

    layers: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    """Of the feed-forward layers."""
    vocabulary: int
    rank: int
    """Of the adapter on all linear layers."""
    segment: int
    """Tokens of a segment; all segments of a context are one batch."""
    question: int
    """Tokens of a question, and of a question with its answer in training."""
    new_tokens: int
    """Of an answer."""
    dtype: str
    training: tuple[int, ...]
    """Tokens of the contexts in training, rising."""
    reading: tuple[int, ...]
    answering: tuple[int, ...]


SIZES = {
    "cpu": Size(
        layers=4, width=64, heads=4, key_heads=2, hidden=176, vocabulary=1024, rank=16, segment=64, question=16,
        new_tokens=16, dtype="float32", training=(256, 512, 1024), reading=(512, 1024, 2048, 4096),
        answering=(512, 2048, 4096, 8192, 16384),
    ),
    "0.5b": Size(
        layers=24, width=896, heads=14, key_heads=2, hidden=4864, vocabulary=151936, rank=256, segment=256, question=64,
        new_tokens=64, dtype="bfloat16", training=(1024, 2048, 4096, 8192),
        reading=(1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
        answering=(1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
    ),
}  # fmt: skip
"""By name. `cpu` is small enough for one core in minutes; `0.5b` has the numbers of Qwen2.5-0.5B."""


@dataclass(frozen=True)
class Case(AnyCase):
    """One piece of PERK's work to measure."""

    module: ClassVar[str] = "scripts.benchmark.perk_case"
    work: str
    """train, read or answer."""
    engine: str
    """train: `higher`, or one of the unrolls of this engine. read: `perk`. answer: `perk` or `ft_icr`."""
    tokens: int
    """Of the context."""
    size: str = "cpu"
    keep: int = 0
    """T, inner steps with their graph."""
    micro: int = 0
    """train: segments in one graph; 0: all at once."""
    accumulation: int = 1
    """read, answer: groups into which the segments are split."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UserError: unknown size, work or engine, or a context that no segments fill.
        """
        engines = {"train": {HIGHER, *Unroll} - {Unroll.none}, "read": {PERK}, "answer": {PERK, FT_ICR}}
        if self.size not in SIZES:
            raise UserError(f"size={self.size}: use one of {', '.join(SIZES)}")
        if self.engine not in engines.get(self.work, set()):
            raise UserError(f"work={self.work} with engine={self.engine}: nothing to measure")
        segment = SIZES[self.size].segment
        if self.tokens % segment or not 1 <= self.accumulation <= self.segments:
            raise UserError(
                f"tokens={self.tokens}, accumulation={self.accumulation}: use a multiple of {segment} tokens and no "
                "more groups than segments"
            )

    @property
    def segments(self) -> int:
        """How many there are."""
        return self.tokens // SIZES[self.size].segment

    @property
    def exact(self) -> bool:
        """In training the gradient of `higher` with the same T, in reading the same memory as in one batch; in bfloat16
        rounding is too coarse to tell.
        """
        return self.work in ("train", "read") and SIZES[self.size].dtype == "float32"


def groups(size: str) -> list[Group]:
    """All of them at full length."""
    sizes = SIZES[size]
    return [
        training(size, sizes.training, (1, 2, 3, 4)),
        exact(size, sizes.training[-2]),
        reading(size, sizes.reading, ACCUMULATIONS),
        answering(size, sizes.answering),
    ]


def quick_groups(size: str) -> list[Group]:
    """The same with the ends of every series alone, each case once."""
    sizes = SIZES[size]
    found = [
        training(size, sizes.training[:2], (1, 4)),
        exact(size, sizes.training[0]),
        reading(size, (sizes.reading[0], GROWTH * sizes.reading[0]), (1, 8)),
        answering(size, (sizes.answering[0], sizes.answering[2])),
    ]
    return [replace(group, rows=tuple(map(_once, group.rows))) for group in found]


def _once(row: Row) -> Row:
    return replace(row, case=replace(row.case, repeats=1), memory=None, time=None)


def training(size: str, lengths: Sequence[int], kept: Sequence[int]) -> Group:
    rows: list[Row] = []
    labels: dict[int, dict[str, dict[int, str]]] = {}
    for tokens in lengths:
        for keep in kept:
            pair = [
                Row(f"{tokens} tokens, T={keep}, {engine}", Case("train", engine, tokens, size, keep), most, most)
                for engine, most in ((HIGHER, None), (Unroll.tgu, 1.0))
            ]
            rows += block(*pair)
            for row, name in zip(pair, (HIGHER, "ours"), strict=True):
                labels.setdefault(tokens, {}).setdefault(name, {})[keep] = row.label
    question = (
        f"What does an outer step of PERK cost with T of {STEPS} inner AdamW steps unrolled exactly, the others "
        "truncated (the paper's TGU(N - T))? `higher` makes the graph of truncated steps too and then cuts their "
        "gradients off, as the released code does"
    )
    return Group("training", question, tuple(rows), lambda results: retained_notes(labels, results))


def exact(size: str, tokens: int) -> Group:
    def case(engine: str, keep: int = 0, micro: int = 0) -> Case:
        return Case("train", engine, tokens, size, keep, micro)

    rows = (
        Row("higher", case(HIGHER, keep=STEPS)),
        Row("tgu, T=4", case(Unroll.tgu, keep=STEPS)),
        Row("recompute", case(Unroll.recompute)),
        Row("recompute, micro=1", case(Unroll.recompute, micro=1)),
    )
    short = (
        Row("higher, T=2", case(HIGHER, keep=2)),
        Row("tgu, T=2", case(Unroll.tgu, keep=2)),
        Row("tgu, T=2, micro=1", case(Unroll.tgu, keep=2, micro=1)),
    )
    question = (
        f"How far down can the memory of {tokens} tokens go? All {STEPS} steps exactly, and T=2; micro=1: one segment "
        "in a graph"
    )
    return Group("exact", question, (*block(*rows), *block(*short)))


def reading(size: str, lengths: Sequence[int], accumulations: Sequence[int]) -> Group:
    labels: dict[tuple[int, int], str] = {}
    rows: list[Row] = []
    for tokens in lengths:
        found = []
        for accumulation in accumulations:
            if accumulation <= tokens // SIZES[size].segment:
                labels[tokens, accumulation] = f"{tokens} tokens, accumulation {accumulation}"
                case = Case("read", PERK, tokens, size, accumulation=accumulation, repeats=1)
                found.append(Row(labels[tokens, accumulation], case))
        rows += block(*found)

    def notes(results: Results) -> list[str]:
        pairs = [
            (short, labels[GROWTH * tokens, GROWTH * accumulation])
            for (tokens, accumulation), short in labels.items()
            if (GROWTH * tokens, GROWTH * accumulation) in labels
        ]
        return [flat_note(short, long, results) for short, long in pairs]

    question = (
        "What does it cost to write a context into the adapter, its segments in one batch or in groups? Exact: the "
        "same memory as in one batch"
    )
    return Group("reading", question, tuple(rows), notes)


def answering(size: str, lengths: Sequence[int]) -> Group:
    labels: dict[int, tuple[str, str]] = {}
    rows: list[Row] = []
    for tokens in lengths:
        cases = (
            Case("answer", FT_ICR, tokens, size, repeats=1),
            Case("answer", PERK, tokens, size, accumulation=tokens // SIZES[size].answering[0], repeats=1),
        )
        labels[tokens] = (f"{tokens} tokens, FT-ICR", f"{tokens} tokens, PERK")
        rows += block(*(Row(label, case) for label, case in zip(labels[tokens], cases, strict=True)))
    question = (
        f"What is done once, and what does a question cost? FT-ICR keeps keys and values of the context; PERK reads in "
        f"groups of {SIZES[size].answering[0]} tokens. Peak and seconds here are those of reading"
    )
    return Group("answering", question, tuple(rows), after=lambda results: answering_lines(labels, results))
