"""What the benchmark of fast learning measures."""

from dataclasses import dataclass
from typing import ClassVar

from common.errors import UserError
from scripts.benchmark.running import AnyCase, Group, Row, block
from scripts.benchmark.slowfast_notes import fast_lines, memory_lines

SAMPLE, FAST, STACK, META, MEMORY = "sample", "fast", "stack", "meta", "memory"
WRITTEN, STACKED, ALONE = "written", "stacked", "one by one"
PLAIN, STORED, RECOMPUTE, FIRST = "torch.func", "stored", "recompute", "first_order"
KINDS = ("slow", "fast", "loop", "meta")
ENGINES = {
    SAMPLE: (WRITTEN,),
    FAST: (WRITTEN,),
    STACK: (ALONE, STACKED),
    META: (PLAIN, STORED, RECOMPUTE, FIRST),
    MEMORY: KINDS,
}
"""Work -> ways to do it; of the memory table, kinds of learning."""
BATCHES, SAMPLING, DRAWS = (1, 32), (50, 10), (1, 4)
"""Episodes at once, steps of the sampler, draws of noise in a fast step."""
TOGETHER = 0.2
"""A stack of 32 episodes takes at most this share of the time of one by one."""


@dataclass(frozen=True)
class Case(AnyCase):
    """One way to do one piece of work."""

    module: ClassVar[str] = "scripts.benchmark.slowfast_case"
    work: str
    engine: str = WRITTEN
    episodes: int = 1
    steps: int = 50
    """Of the sampler."""
    draws: int = 1
    """Of noise, in a fast step."""
    chunks: int = 2
    """Written one after the other before the outer loss."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UserError: unknown work or engine.
        """
        if self.engine not in ENGINES.get(self.work, ()):
            raise UserError(f"work={self.work}, engine={self.engine}: nothing to measure")

    @property
    def exact(self) -> bool:
        """Whether what comes out must be that of the reference."""
        return self.work in (STACK, META) and self.engine != FIRST


def groups(quick: bool = False) -> list[Group]:
    """All of them; `quick` with fewer episodes and repeats."""
    repeats = 3 if quick else 9
    return [
        *(fast(batch, repeats) for batch in (BATCHES[:1] if quick else BATCHES)),
        stack(8 if quick else 32, repeats),
        *(meta(chunks, 4 if quick else 16, min(repeats, 5)) for chunks in ((2,) if quick else (2, 4))),
        memory(),
    ]


def fast(batch: int, repeats: int) -> Group:
    """A fast step beside the sampling of the chunk that it learns from."""
    rows = [
        *(
            Row(f"sample, {steps} steps", Case(SAMPLE, episodes=batch, steps=steps, repeats=repeats))
            for steps in SAMPLING
        ),
        *(Row(f"learn, {draws} draw(s)", Case(FAST, episodes=batch, draws=draws, repeats=repeats)) for draws in DRAWS),
    ]
    question = f"What does one step of fast learning add to the sampling of a chunk, of {batch} episode(s) at once?"
    return Group(f"fast_{batch}", question, block(*rows), after=lambda results: fast_lines(SAMPLING, DRAWS, results))


def stack(episodes: int, repeats: int) -> Group:
    """Many episodes."""
    made = {engine: Case(STACK, engine, episodes, draws=4, repeats=repeats) for engine in ENGINES[STACK]}
    rows = [Row(engine, case, time=TOGETHER if engine == STACKED else None) for engine, case in made.items()]
    question = f"One step of fast learning, four draws, of {episodes} episodes: one by one, and as one stack"
    return Group("stack", question, block(*rows))


def meta(chunks: int, episodes: int, repeats: int) -> Group:
    """The gradient of an outer loss."""
    rows = [
        Row(engine, Case(META, engine, episodes, draws=4, chunks=chunks, repeats=repeats)) for engine in ENGINES[META]
    ]
    question = (
        f"The outer gradient through {chunks} written chunks, {episodes} episodes in a stack, one step of four draws a "
        "chunk: a loop of plain `torch.func` under `vmap`, and ours by unroll"
    )
    return Group(f"meta_{chunks}", question, block(*rows))


def memory() -> Group:
    """Of the paper's network, which is not run."""
    rows = block(*(Row(kind, Case(MEMORY, kind, repeats=1)) for kind in KINDS))
    question = (
        "What would one step of each kind hold with the paper's backbone (1,411 million weights, rank 32), clips of 32 "
        "frames of 256x256? Peaks are estimates, counted without weights; seconds are those of counting"
    )
    return Group("backbone", question, rows, after=lambda results: memory_lines(KINDS, results))
