"""Ways to answer questions about one knowledge set, taken apart into what is done once and what every question costs.

The paper's protocol (section 4.4): K is a sequence of random letters cut into facts, x asks for the most frequent
one, the answer is one token. Letters are tokens of the vocabulary as they come: what an answer costs does not depend on
which, so no tokenizer is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.engine.compiled import Compiled
from common.engine.cuda.graphs import GraphedDescent
from common.engine.inner import adapt
from common.engine.rates import make_rates
from common.engine.rules import make_rule
from common.engine.settings import InnerConfig, Unroll
from common.engine.twice.policy import Need, needing
from common.engine.unroll.descent import descend
from common.engine.weights import Weights, select
from common.errors import UserError
from common.language.adapter import fast_weights
from common.language.batch import Rows, micro_batches
from common.language.context import KeptContext
from common.language.model import LanguageModel
from common.language.objective import logits, mean_loss

LETTERS = 26
QUESTION, ANSWER = 7, 1
"""Tokens of a question and of its answer; the rest of an example is its knowledge."""


@dataclass(frozen=True)
class Example:
    """A knowledge set and questions about it."""

    facts: Tensor
    """int64 [facts, tokens of a fact]; one after the other they are the context of in-context reading."""
    questions: Tensor
    """int64 [questions, QUESTION]"""


def example_of(tokens: int, facts: int, questions: int, *, seed: int, device: torch.device) -> Example:
    """Random letters: `tokens` in all for knowledge, one question and its answer.

    Raises:
        UserError: too few tokens for a fact of two.
    """
    length = (tokens - QUESTION - ANSWER) // facts
    if length < 2:
        raise UserError(f"tokens={tokens} with facts={facts}: a fact needs two tokens; use more tokens or fewer facts")
    draw = torch.Generator().manual_seed(seed)
    shapes = ((facts, length), (questions, QUESTION))
    knowledge, asked = (torch.randint(LETTERS, shape, generator=draw).to(device) for shape in shapes)
    return Example(knowledge, asked)


@dataclass(frozen=True)
class Way:
    """One way to answer; `ask(read(), questions)` are the answers' logits, [questions, vocabulary]."""

    read: Callable[[], Any]
    """Take in the knowledge; what is left of it."""
    ask: Callable[[Any, Tensor], Tensor]
    """Answer int64 [questions, QUESTION]; may be called again with the same reading."""
    rereads: bool = False
    """Nothing is kept: every question costs the whole context."""


def ways(model: LanguageModel, inner: InnerConfig, example: Example, *, capture: bool = False) -> dict[str, Way]:
    """All ways that are compared, by name; `capture` replays the inner steps as a CUDA graph."""
    context, encoding = _InContext(model, example), _Encoding(model, inner, example, capture)
    return {
        "ft_icr": Way(lambda: None, context.reread, rereads=True),
        "ft_icr_cached": Way(context.kept.read, context.kept.one_by_one),
        "ft_icr_batched": Way(context.kept.read, context.kept.at_once),
        "reckoning": Way(encoding.read, encoding.one_by_one),
        "reckoning_batched": Way(encoding.read, encoding.at_once),
    }


class _InContext:
    """FT-ICR: the facts stand before the question."""

    def __init__(self, model: LanguageModel, example: Example) -> None:
        self.network, self.weights = model.network, select(model.network)
        self.context = example.facts.flatten()
        self.kept = KeptContext(self.network, self.weights, self.context)

    def reread(self, _: None, questions: Tensor) -> Tensor:
        """As published: the whole sequence for every question."""
        return torch.cat([self._answer(torch.cat([self.context, question])[None]) for question in questions])

    def _answer(self, ids: Tensor) -> Tensor:
        with torch.no_grad(), needing(Need.first):
            return logits(self.network, self.weights, ids, keep=1)[:, -1]


class _Encoding:
    """RECKONING: the facts, as a batch, go into the weights."""

    def __init__(self, model: LanguageModel, inner: InnerConfig, example: Example, capture: bool) -> None:
        self.network, self.inner = model.network, inner
        self.start = fast_weights(model.network, inner.weights)
        self.rates = make_rates(inner, list(self.start)).to(example.facts.device)
        self.rule = make_rule(inner)
        self.memorise: Any = lambda weights, rows: mean_loss(model.losses, weights, rows)
        if inner.compile:
            self.memorise = Compiled(self.memorise, model.network)
        scored = torch.ones(example.facts.shape, device=example.facts.device)
        rows = Rows(example.facts, scored, scored.new_full((len(scored),), 1 / len(scored)))
        self.parts = micro_batches(rows, inner.micro_batch)
        self.descent = GraphedDescent() if capture else descend

    def read(self) -> Weights:
        """The weights after the inner steps."""
        return adapt(
            self.memorise,
            self.start,
            self.parts,
            steps=self.inner.steps,
            rule=self.rule,
            rates=self.rates,
            unroll=Unroll.none,
            descent=self.descent,
        ).weights

    def one_by_one(self, fast: Weights, questions: Tensor) -> Tensor:
        """Each question in a forward pass of its own."""
        return torch.cat([self.at_once(fast, question[None]) for question in questions])

    def at_once(self, fast: Weights, questions: Tensor) -> Tensor:
        """All questions as one batch."""
        with torch.no_grad(), needing(Need.first):
            return logits(self.network, fast, questions, keep=1)[:, -1]
