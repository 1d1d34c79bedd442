"""What the engine benchmark measures: groups of cases, each with its question, its reference and its targets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from common.engine.settings import Unroll
from common.errors import UserError
from scripts.benchmark.case_results import Result
from scripts.benchmark.engine_results import auto_notes, growth_note, pair_note, truncation_notes
from scripts.benchmark.running import AnyCase, Group, Row, block

OTHERS = ("higher", "torch.func", "torchopt")
RATE = {"sgd": 0.05, "adamw": 1e-3}
EPS = 1e-4
"""Of AdamW. With the usual 1e-8 the direction of weights whose gradient is all rounding (biases of attention keys, say)
is a sign of that rounding, and then no two programs in single precision agree on the outer gradient to 1e-4.
"""


@dataclass(frozen=True)
class Case(AnyCase):
    """One outer gradient to measure; a JSON object on the command line of `scripts.benchmark.engine_case`."""

    module: ClassVar[str] = "scripts.benchmark.engine_case"
    engine: str
    """higher, torch.func, torchopt, or one of the unrolls of this engine."""
    steps: int = 8
    tasks: int = 8
    rows: int = 8
    tokens: int = 64
    rule: str = "sgd"
    layers: int = 4
    width: int = 256
    heads: int = 8
    vocabulary: int = 1024
    rank: int = 0
    """Of LoRA on all linear layers over a frozen base; 0: all weights are fast."""
    keep: int = 0
    lean: bool = True
    """This engine's attention and activations in place of the model's own; the other engines run the model as it is."""
    compiled: bool = False
    stacked: bool = False
    judged: bool = False
    """Stacked only where `common.engine.plan.stacking_pays` says so, as `inner.stack=true` does."""
    micro: int = 0
    """Rows of a micro-batch; 0: all at once."""
    budget: float = 0.0
    """Memory budget of `auto`, bytes."""
    snapshots: str = "device"

    def __post_init__(self) -> None:
        """Refuse what the other engines cannot do, rather than measure something else.

        Raises:
            UserError: an unknown engine, or one that does not know an option.
        """
        if self.ours:
            return
        if self.engine not in OTHERS:
            raise UserError(f"engine={self.engine}: use one of {', '.join([*OTHERS, *Unroll])}")
        extra = [name for name in ("keep", "compiled", "stacked", "judged", "micro", "budget") if getattr(self, name)]
        if extra:
            raise UserError(f"engine={self.engine} does not know {', '.join(extra)}: leave that out, or use stored")
        if self.engine == "torchopt" and (self.rank or self.rule != "sgd"):
            raise UserError(
                f"engine=torchopt with rank={self.rank}, rule={self.rule}: MetaSGD differentiates by every weight, "
                "frozen ones too; use rank=0 and rule=sgd, or another engine"
            )

    @property
    def ours(self) -> bool:
        """Whether this engine is meant, not one that it is compared with."""
        return self.engine in set(Unroll)

    @property
    def exact(self) -> bool:
        """Whether its outer gradient must be that of the reference."""
        cut = self.engine in (Unroll.first_order, Unroll.none)
        cut = cut or (self.engine == Unroll.truncate and self.keep < self.steps)
        return not cut and not (self.engine == "higher" and self.rule == "adamw")  # it has Adam alone


def row(base: Case, engine: str, *, memory: float | None = None, time: float | None = None, **changes: Any) -> Row:
    """`base` with another engine and what `changes` says; the label names these."""
    case = replace(base, engine=engine, **changes)
    adam = engine == "higher" and case.rule == "adamw"
    words = [_word(name, value) for name, value in changes.items()]
    return Row(", ".join(["higher (Adam: it has no AdamW)" if adam else engine, *words]), case, memory, time)


def _word(name: str, value: Any) -> str:
    """One change in the words of a table."""
    if name == "stacked":
        return "stacked" if value else "one by one"
    if name == "judged":
        return "if it pays"
    if name == "rule":
        return {"sgd": "SGD", "adamw": "AdamW"}[value]
    if name == "budget":
        return f"{value / 1e9:g} GB"
    if name in ("tokens", "tasks"):
        return f"{value} {name if value > 1 else name.rstrip('s')}"
    return "compiled" if name == "compiled" else f"{'K' if name == 'steps' else name}={value}"


FULL = Case("higher")
QUICK = Case("higher", layers=2, width=128, tokens=32, tasks=2, repeats=1)
SMALL = Case("higher", steps=4, tasks=16, rows=4, tokens=6, layers=2, width=64, heads=4, vocabulary=64)


def groups() -> list[Group]:
    """All of them, at the sizes that the targets are meant for."""
    pairs = replace(FULL, tasks=2)
    return [
        sgd(replace(FULL, repeats=2)),
        others(pairs),
        adamw(pairs),
        lora(pairs),
        small(SMALL),
        stack(),
        steps(),
        truncate(),
        tokens(),
        tasks(),
        auto(),
    ]


def quick_groups() -> list[Group]:
    """A few of them at sizes for a laptop, without what has to be compiled; targets do not hold there."""
    found = [sgd(QUICK), adamw(QUICK), lora(QUICK), small(replace(SMALL, repeats=1))]
    return [replace(group, rows=tuple(map(_untargeted, _uncompiled(group.rows)))) for group in found]


def _uncompiled(rows: tuple[Row, ...]) -> list[Row]:
    return [each for each in rows if not getattr(each.case, "compiled", False)]


def _untargeted(each: Row) -> Row:
    return replace(each, memory=None, time=None)


def sgd(base: Case) -> Group:
    base = replace(base, steps=8)
    plain, compiled = {"memory": 0.20, "time": 1.15}, {"memory": 0.17, "time": 0.95}
    rows = block(
        row(base, "higher"),
        row(base, "stored", memory=1.0, time=1.0),
        row(base, "recompute", **plain),
        row(base, "recompute", micro=4, **plain),
        row(base, "recompute", compiled=True, **compiled),
    )
    question = f"What does the outer gradient cost with all weights fast and SGD inside? K=8, {base.tasks} tasks"
    return Group("sgd", question, rows)


def others(base: Case) -> Group:
    base = replace(base, steps=8)
    rows = block(
        row(base, "higher"),
        row(base, "torch.func"),
        row(base, "torchopt"),
        row(base, "recompute", keep=1),
        row(base, "recompute", compiled=True, micro=4),
        row(base, "truncate", keep=2),
        row(base, "first_order"),
    )
    return Group("others", "How do other libraries and the other unrolls compare? As sgd, 2 tasks", rows)


def adamw(base: Case) -> Group:
    base = replace(base, steps=4, rule="adamw")
    target = {"memory": 0.15, "time": 1.1}
    rows = block(
        row(base, "torch.func"),
        row(base, "stored"),
        row(base, "recompute", **target),
        row(base, "recompute", micro=1, **target),
        row(base, "recompute", compiled=True, micro=2, **target),
        row(base, "recompute", compiled=True, micro=1, **target),
    )
    return Group("adamw", "What does it cost with AdamW inside? K=4, 2 tasks, all weights fast", rows)


def lora(base: Case) -> Group:
    base = replace(base, steps=8, rank=8)
    target = {"memory": 0.15, "time": 1.15}
    rows = block(
        row(base, "higher"),
        row(base, "stored"),
        row(base, "recompute", **target),
        row(base, "recompute", micro=1, memory=0.06),
        row(base, "recompute", compiled=True, **target),
        row(base, "recompute", compiled=True, micro=1, memory=0.06),
    )
    question = "What does it cost with LoRA over a frozen base? Rank 8, K=8, 2 tasks; GFLOP: none for frozen weights"
    return Group("lora", question, rows)


def small(base: Case) -> Group:
    rows = block(
        row(base, "higher"),
        row(base, "stored", stacked=False),
        row(base, "stored", stacked=True, time=0.2),
        row(base, "stored", stacked=True, judged=True, time=0.2),
        row(base, "recompute", stacked=True, time=0.2),
        row(base, "recompute", stacked=True, compiled=True, time=0.2),
    )
    return Group("small", "How much faster is a stack of 16 tasks where overhead rules? Tiny model, K=4", rows)


def stack() -> Group:
    base = replace(FULL, steps=4, tasks=4)
    stored = row(base, "stored", stacked=False), row(base, "stored", stacked=True)
    recompute = row(base, "recompute", stacked=False), row(base, "recompute", stacked=True)
    chosen = row(base, "stored", stacked=True, judged=True), row(base, "recompute", stacked=True, judged=True)

    def notes(results: Mapping[str, Result]) -> list[str]:
        pairs = zip((stored[0], recompute[0]), chosen, strict=True)
        return [pair_note(judged.label, single.label, results, 1.05) for single, judged in pairs]

    question = "Does stacking cost time where matrix products rule? K=4, 4 tasks; `inner.stack=true` does what pays"
    return Group("stack", question, block(*stored, *recompute, *chosen), notes)


def steps() -> Group:
    series: dict[str, list[tuple[int, str]]] = {}
    rows: list[Row] = []
    for rule, engines in {
        "sgd": ["higher", "stored", "recompute"],
        "adamw": ["torch.func", "higher", "stored", "recompute"],
    }.items():
        for count in (1, 2, 4, 8):
            found = [row(replace(FULL, tasks=1, repeats=1), engine, rule=rule, steps=count) for engine in engines]
            rows += block(*found)
            for each in found:
                series.setdefault(each.label.rpartition(",")[0], []).append((count, each.label))

    def notes(results: Mapping[str, Result]) -> list[str]:
        most = {name: 1.2 if name.startswith("recompute") else None for name in series}
        return [growth_note(name, labels, results, most[name]) for name, labels in series.items()]

    return Group("steps", "How much memory does one more inner step take? One task", tuple(rows), notes)


def truncate() -> Group:
    base = replace(FULL, tasks=1)
    kept = {keep: row(base, "truncate", steps=8, keep=keep) for keep in (8, 4, 2, 1, 0)}
    short, first = row(base, "truncate", steps=2, keep=2), row(base, "first_order", steps=8)

    def notes(results: Mapping[str, Result]) -> list[str]:
        labels = {keep: each.label for keep, each in sorted(kept.items())}
        return truncation_notes(labels, short.label, first.label, results)

    question = "Does a truncated unroll cost what is kept, and no more? One task; K=8 keep=8 is the exact gradient"
    # two steps are another problem than eight: that row stands beside itself alone
    return Group("truncate", question, (*block(*kept.values(), first), *block(short)), notes)


def tokens() -> Group:
    base = replace(FULL, steps=4, tasks=1)
    rows: list[Row] = []
    for count in (32, 128):
        engines = [row(base, engine, tokens=count) for engine in ("higher", "stored", "recompute")]
        rows += block(*engines, row(base, "recompute", tokens=count, micro=1))
    return Group("tokens", "How does the cost grow with the length of the rows? K=4, one task", tuple(rows))


def tasks() -> Group:
    rows: list[Row] = []
    for count in (1, 2, 4, 8):
        rows += block(
            row(SMALL, "higher", tasks=count),
            row(SMALL, "stored", tasks=count, stacked=False),
            row(SMALL, "stored", tasks=count, stacked=True),
        )
    return Group("tasks", "From how many tasks on does a stack pay? Tiny model, K=4", tuple(rows))


def auto() -> Group:
    base = replace(FULL, tasks=1)
    fixed = [row(base, "stored"), *(row(base, "recompute", keep=keep) for keep in (4, 2, 0))]
    budgets = {budget: row(base, "auto", budget=budget) for budget in (0.3e9, 0.7e9, 1.2e9, 2e9)}

    def notes(results: Mapping[str, Result]) -> list[str]:
        labels = {budget: each.label for budget, each in budgets.items()}
        return auto_notes(labels, [each.label for each in fixed], results)

    question = "Does auto take the fastest that fits the memory budget? K=8, one task"
    return Group("auto", question, block(*fixed, *budgets.values()), notes)
