"""What FAL's benchmark measures: a round of federated adversarial training, and accuracy under attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from common.errors import UserError
from scripts.benchmark.case_results import Result
from scripts.benchmark.fal_notes import early_lines, flat_lines, round_lines
from scripts.benchmark.running import AnyCase, Group, Row, block

USUAL, LEAN, LOOP, STACK, PLAN, COMPILED = "usual", "lean", "loop", "stack", "plan", "compiled"
ALL_ITEMS, EARLY = "all items", "early exit"
ENGINES = {"round": (USUAL, LEAN, LOOP, STACK, PLAN, COMPILED), "judge": (ALL_ITEMS, EARLY)}
CHUNK = 10
"""Clients of a stack whatever the plan says."""
FEW = 5
"""Clients of the models that are too large for a hundred."""


@dataclass(frozen=True)
class Wanted:
    """At least so many times as fast as the usual and as the lean loop."""

    usual: float = 0.0
    lean: float = 0.95
    """The plan takes the loop where a stack does not pay, and that costs 5 % at most."""


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


@dataclass(frozen=True)
class Case(AnyCase):
    """One way to do one piece of work."""

    module: ClassVar[str] = "scripts.benchmark.fal_case"
    engine: str
    """Of a round: the usual or the lean loop, ours one by one, in stacks of 10, as planned, or compiled. Of a judge:
    all items to the end, or until they are fooled."""
    work: str = "round"
    """round or judge."""
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
    return [*(rounds(model, tuple(batches)) for model, batches in MODELS.items()), clients(), early()]


def quick_groups() -> list[Group]:
    """Two models, a tenth of the clients, nothing compiled."""
    few: dict[str, Any] = {"clients": 20, "steps": 1, "repeats": 1}
    found = [rounds("mlp_64", (10,), compiled=False), rounds("cnn_9k", (10,), compiled=False), early()]
    return [
        replace(group, rows=tuple(replace(row, case=replace(row.case, **few)) for row in group.rows)) for group in found
    ]


def rounds(model: str, batches: Sequence[int], *, compiled: bool = True) -> Group:
    """A round by every engine."""
    large = model == "resnet18"
    engines = [each for each in ENGINES["round"] if each != COMPILED or (compiled and not large)]
    size: dict[str, Any] = {"clients": FEW, "steps": 1, "repeats": 1} if large else {}
    rows: list[Row] = []
    labels: dict[int, dict[str, str]] = {}
    for batch in batches:
        labels[batch] = {engine: f"batch {batch}, {engine}" for engine in engines}
        rows += block(
            *(Row(label, Case(engine, model=model, batch=batch, **size)) for engine, label in labels[batch].items())
        )

    def after(results: Mapping[str, Result]) -> list[str]:
        wanted = {batch: (MODELS[model][batch].usual, MODELS[model][batch].lean) for batch in batches}
        return round_lines(labels, wanted, BEYOND, results)

    count = rows[0].case
    assert isinstance(count, Case)
    question = (
        f"One round of {count.clients} clients with {model}, {count.steps} local step(s) each, PGD-7: the usual loop "
        "(`loss.backward()` in the attack), a lean one by hand, ours one by one, in stacks of 10, as the plan chooses, "
        "and compiled"
    )
    return Group(model, question, tuple(rows), after=after)


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
