"""What one step of a language model costs, counted on few of its layers without data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.footprint import Courses, Footprint, Trace, carried_on, trace
from common.engine.rules import make_rule
from common.engine.settings import InnerConfig
from common.engine.weights import Weights, stack
from common.language.adapter import fast_weights
from common.language.batch import Rows, micro_batches
from common.language.blocks import Blocks, blocks_of
from common.language.objective import Losses, mean_loss
from common.language.token_losses import TokenLosses

FEW = 2
"""Layers of a kind that are counted where the first is a case of its own, else 1; one more tells what others add."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a large problem: rows that the inner loop reads, and questions with their targets."""

    rows: int
    row_tokens: int
    questions: int
    question_tokens: int
    source: str
    """Where the sizes come from, in words."""


@dataclass(frozen=True)
class Step:
    """One outer step; `network` may be without data (fake tensors)."""

    network: nn.Module
    shape: Shape
    problems: int
    """In a batch."""
    inner: InnerConfig | None
    """None: no inner loop; the rows stand before every question, and all problems are in one graph."""
    device: torch.device
    memorised: Losses | None = None
    """What the inner loop minimises; None for the losses of the tokens as they are."""
    others: Sequence[Tensor] = ()
    """What else of it learns and is no weight of the network."""
    autocast: bool = False
    """As in `TokenLosses`."""
    counted: dict[Any, Footprint] = field(default_factory=dict, repr=False, compare=False)
    """What was counted already: steps that differ in what is kept alone cost the same."""
    courses: dict[Any, Courses] = field(default_factory=dict, repr=False, compare=False)
    """The same of parts of a step: micro-batches cost alone what as many rows cost, however many follow."""

    @property
    def rebuilds(self) -> bool:
        """Whether it, or an exact change of it, builds steps again."""
        return self.inner is not None and self.inner.unroll.exact


def count(step: Step) -> Footprint:
    """Counted with few layers of each kind, and carried on by what one more of each adds."""
    start = fast_weights(step.network, (step.inner or InnerConfig()).weights)
    blocks = blocks_of(step.network, start)
    if blocks is None:
        return _counted(step, start).footprint()
    few, place = (1, blocks.side) if blocks.evenly(step.network, start) else (FEW, blocks.place)
    base = [kind[:few] for kind in blocks.kinds]
    if sum(map(len, blocks.kinds)) <= sum(map(len, base)) + len(base):
        return _counted(step, start).footprint()
    small = _with_layers(step, start, blocks, base, place)
    longer = [
        (
            _with_layers(step, start, blocks, [*base[:index], kind[: few + 1], *base[index + 1 :]], place),
            len(kind) - few,
        )
        for index, kind in enumerate(blocks.kinds)
        if len(kind) > few
    ]
    try:
        return carried_on(small, longer).footprint()
    except ValueError:  # further layers take another course
        return _counted(step, start).footprint()


def _with_layers(
    step: Step, start: Weights, blocks: Blocks, kept: list[list[int]], place: Callable[[str], str]
) -> Trace:
    places = sorted(place for kind in kept for place in kind)
    with blocks.only(places):
        return _counted(step, blocks.renamed(start, places), place, places)


def _counted(
    step: Step, start: Weights, place: Callable[[str], str] | None = None, layers: Sequence[int] = ()
) -> Trace:
    inner, shape, network = step.inner or InnerConfig(), step.shape, step.network
    tasks = (step.problems,) if inner.stack else ()
    losses = TokenLosses(network, autocast=step.autocast)
    memorised = losses if step.memorised is None else step.memorised
    read, questions = (
        _blank(tasks, *size) for size in ((shape.rows, shape.row_tokens), (shape.questions, shape.question_tokens))
    )
    given = (tuple(layers), tasks, tuple(start), shape.questions, shape.question_tokens)
    named = list(network.named_parameters())
    return trace(
        lambda weights, rows: mean_loss(memorised, weights, rows),
        lambda weights: mean_loss(losses, weights, questions),
        stack(start, *tasks) if tasks else start,
        micro_batches(read, inner.micro_batch),
        make_rule(inner),
        [*(w for name, w in named if w.requires_grad and name not in start), *step.others],
        place,
        {name: w for name, w in named if name not in start},
        step.courses.setdefault(given, {}),
        step.rebuilds,
    )


def _blank(tasks: tuple[int, ...], count: int, length: int) -> Rows:
    """A batch of that size, of no particular tokens."""
    rows = (*tasks, count)
    return Rows(torch.zeros(*rows, length, dtype=torch.long), torch.ones(*rows, length), torch.ones(rows))
