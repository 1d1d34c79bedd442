"""What FAL's benchmark measures: a round of federated adversarial training, and accuracy under attack."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from common.errors import UserError
from scripts.benchmark.fal_notes import choice_lines, early_lines, flat_lines, library_lines, round_lines
from scripts.benchmark.running import AnyCase, Group, Row, block

USUAL, LEAN, VMAP, LOOP, STACK, PLAN, COMPILED = "usual", "lean", "vmap", "loop", "stack", "plan", "compiled"
ALL_ITEMS, EARLY = "all items", "early exit"
FLUKE, FLOWER, CHOICE = "fluke", "flower", "choice"
ENGINES = {
    "round": (USUAL, LEAN, VMAP, LOOP, STACK, PLAN, COMPILED), "judge": (ALL_ITEMS, EARLY), "fluke": (FLUKE, PLAN),
    "flower": (FLOWER, PLAN), "choice": (PLAN,),
}  # fmt: skip
FLOOR = 0.95
"""Over the lean loop, everywhere: the plan takes the loop where a stack does not pay, and that costs 5 % at most."""
FEW = 5
"""Clients of the models that are too large for a hundred."""


@dataclass(frozen=True)
class Wanted:
    """At least so many times as fast as the usual and as the lean loop."""

    usual: float = 0.0
    lean: float = FLOOR


MODELS: dict[str, dict[int, Wanted]] = {
    "mlp_64": {10: Wanted(3.9, 2.3), 32: Wanted()},
    "mlp_200": {10: Wanted(), 32: Wanted()},
    "cnn_9k": {10: Wanted(4.7, 3.2), 32: Wanted(2.2, 1.7)},
    "cnn_106k": {10: Wanted(2.7, 1.9), 32: Wanted()},
    "cnn_106k_group": {10: Wanted(1.6, 1.15), 32: Wanted()},
    "cnn_106k_batch": {10: Wanted(1.8, 1.25), 32: Wanted()},
    "lenet": {10: Wanted(), 32: Wanted()},
    "resnet18": {10: Wanted(), 32: Wanted()},
}
"""conf/fal/model -> batch -> what the plan's round must reach."""
BEYOND = 32
"""MiB that a round may hold beyond the lean loop."""
FLAT = 1.05
"""Memory of ten times the clients."""
EXIT = 1.5
"""An early exit is so many times as fast."""
OVER = {FLUKE: 5.0, FLOWER: 50.0}
"""A round of ours is so many times as fast as the library's, with 100 clients."""


@dataclass(frozen=True)
class Case(AnyCase):
    """One way to do one piece of work."""

    module: ClassVar[str] = "scripts.benchmark.fal_case"
    engine: str
    """Of a round: the usual or the lean loop, stacks of 10 by plain `vmap`, ours one by one, in stacks of 10, as
    planned, or compiled. Of a choice: as planned, and the other way beside it. Of a judge: all items to the end, or
    until they are fooled. Beside a library: it, or ours."""
    work: str = "round"
    """round, choice, judge, or a library whose round it is."""
    model: str = "cnn_9k"
    batch: int = 10
    clients: int = 100
    steps: int = 2
    """Local ones of a round."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UserError: unknown work, engine or model.
        """
        if self.engine not in ENGINES.get(self.work, ()) or self.model not in MODELS:
            raise UserError(f"work={self.work}, engine={self.engine}, model={self.model}: nothing to measure")


def groups() -> list[Group]:
    """All of them at full size."""
    others = [beside(FLUKE, 100), beside(FLOWER, 10, 100)]
    return [choices(), *(rounds(model, wanted) for model, wanted in MODELS.items()), clients(), early(), *others]


def quick_groups() -> list[Group]:
    """Two models, a fifth of the clients, nothing compiled; nothing is wanted there."""
    small: dict[str, Any] = {"clients": 20, "steps": 1, "repeats": 1}
    found = [rounds(model, {10: Wanted(0, 0)}, compiled=False, **small) for model in ("mlp_64", "cnn_9k")]
    judged = early()
    return [*found, replace(judged, rows=tuple(replace(row, case=replace(row.case, repeats=1)) for row in judged.rows))]


def rounds(model: str, wanted: Mapping[int, Wanted], *, compiled: bool = True, **size: int) -> Group:
    """A round by every engine, at every batch of `wanted`."""
    if model == "resnet18":
        compiled, size = False, {"clients": FEW, "steps": 1, "repeats": 1}
    engines = [each for each in ENGINES["round"] if each != COMPILED or compiled]
    cases = {
        batch: {engine: Case(engine, model=model, batch=batch, **cast(Any, size)) for engine in engines}
        for batch in wanted
    }
    labels = {batch: {engine: f"batch {batch}, {engine}" for engine in engines} for batch in wanted}
    rows = [
        row
        for batch, made in cases.items()
        for row in block(*(Row(labels[batch][engine], case) for engine, case in made.items()))
    ]
    least = {batch: (each.usual, each.lean) for batch, each in wanted.items()}
    one = next(iter(cases.values()))[USUAL]
    question = (
        f"One round of {one.clients} clients with {model}, {one.steps} local step(s) each, PGD-7: the usual loop "
        "(`loss.backward()` in the attack), a lean one by hand, stacks of 10 by plain `vmap`, ours one by one, in "
        "stacks of 10, as the plan chooses, and compiled"
    )
    return Group(model, question, tuple(rows), after=lambda results: round_lines(labels, least, BEYOND, results))


def choices() -> Group:
    """What the plan takes, beside the other way, on one stack of clients; ResNet-18 takes too long to be stacked."""
    cells = [(model, batch) for model, wanted in MODELS.items() if model != "resnet18" for batch in wanted]
    labels = {cell: "{}, batch {}".format(*cell) for cell in cells}
    rows = [
        block(Row(label, Case(PLAN, CHOICE, model, batch, clients=10, steps=1, repeats=5)))
        for (model, batch), label in labels.items()
    ]
    question = (
        "Does the plan take the faster way, ten clients one by one or in a stack, and is it as fast as the lean loop?"
    )
    return Group(
        CHOICE, question, sum(rows, ()), after=lambda results: choice_lines(list(labels.values()), FLOOR, results)
    )


def clients() -> Group:
    """More of them."""
    counts = (100, 1000)
    labels = {count: f"{count} clients" for count in counts}
    rows = block(*(Row(labels[count], Case(PLAN, clients=count, steps=1, repeats=1)) for count in counts))
    question = "Does the memory of a round grow with the number of clients? cnn_9k, batch 10"
    return Group("clients", question, rows, after=lambda results: flat_lines(labels, FLAT, results))


def early() -> Group:
    """Judging a model that is robust on about 40 % of the images."""
    labels = {engine: engine for engine in ENGINES["judge"]}
    rows = block(*(Row(label, Case(engine, "judge")) for engine, label in labels.items()))
    question = "PGD-20 on a model with about 40 % robust accuracy: what is it worth that fooled images leave? cnn_9k"
    return Group("early_exit", question, rows, after=lambda results: early_lines(list(labels), EXIT, results))


def beside(library: str, *counts: int) -> Group:
    """A round by a library and ours, which has the targets at its largest size."""
    labels = {count: (f"{count} clients, {library}", f"{count} clients, {PLAN}") for count in counts}
    rows: list[Row] = []
    for count, (its, own) in labels.items():
        rows += block(Row(its, Case(library, library, clients=count)), Row(own, Case(PLAN, library, clients=count)))
    what = {
        FLUKE: "fluke's FAT, PGD-10 from the clean points and both trained on, and ours of the same method",
        FLOWER: "Flower's simulation with the usual loop in its clients, CPU seconds of all its processes, and ours",
    }  # fmt: skip
    question = f"One round of cnn_9k, batch 10, 2 local steps each: {what[library]}"
    least = {count: OVER[library] if count == max(counts) else 0.0 for count in counts}
    return Group(library, question, tuple(rows), after=lambda results: library_lines(labels, least, results))
