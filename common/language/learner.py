"""The two kinds of language-model learners: one writes what it is given into weights, the other reads it in the prompt.

A paper says which rows a problem of its own (`P`) has, and what its losses are; reading and answering stand here once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor, nn

from common.engine.inner import Adapted
from common.engine.settings import Unroll
from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights
from common.language.batch import Row, Rows, tensors_for, to_rows
from common.language.decode import continuations
from common.language.model import LanguageModel
from common.language.objective import mean_loss
from common.language.writer import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

P = TypeVar("P")
Responses = list[list[str]]
"""[problems][questions] decoded text."""


class Learner(ABC, Generic[P]):
    """What the training loop and the evaluation ask for.

    A batch goes through it group by group, each group's loss backward before the next begins:

        for group in learner.groups(problems):
            fast = learner.memorise(group, training=True)
            loss = learner.answer_loss(fast, group)
    """

    def __init__(self, model: LanguageModel, tokenizer: "PreTrainedTokenizerBase") -> None:
        """`tokenizer`: with an end-of-text token, at which an answer ends."""
        self.model, self.tokenizer = model, tokenizer
        self.learns: nn.Module = model.network
        """What training changes; of its parameters those that ask for a gradient."""

    @abstractmethod
    def rows(self, problem: P) -> list[Row]:
        """Every row of the problem that training reads."""

    @abstractmethod
    def groups(self, problems: Sequence[P]) -> list[Sequence[P]]:
        """The problems of a training batch in groups that share one graph; `measured` begins anew."""

    @abstractmethod
    def memorise(self, group: Sequence[P], *, training: bool) -> Weights:
        """The inner loop: the weights that answer the questions of `group`, with an outer graph while `training`.

        A learner without an inner loop answers from its own.
        """

    @abstractmethod
    def answer_loss(self, fast: Weights, group: Sequence[P]) -> Tensor:
        """The outer loss of `group` under `fast`, []: the sum over its problems of the mean over their questions."""

    @property
    def measured(self) -> dict[str, float]:
        """Numbers of the last training batch for the log."""
        return {}

    @abstractmethod
    def respond(self, problems: Sequence[P], new_tokens: int) -> Responses:
        """Greedy answers to all questions; no weight changes."""

    def decoded(
        self, weights: Weights, prompts: Sequence[Sequence[Sequence[int]]], new_tokens: int, *, stacked: bool = False
    ) -> Responses:
        """Greedy continuations as text; `prompts` [tasks][rows], one task unless the weights are stacked."""
        eos = int(self.tokenizer.eos_token_id)
        found = continuations(self.model, weights, prompts, eos=eos, new_tokens=new_tokens, stacked=stacked)
        return [[self.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows] for rows in found]


class MemoryLearner(Learner[P]):
    """Writes what is given into the weights, then answers without it."""

    def __init__(
        self, model: LanguageModel, tokenizer: "PreTrainedTokenizerBase", writer: Writer, *, meta: bool
    ) -> None:
        """`meta`: False trains without the inner loop, which then runs at test time only."""
        super().__init__(model, tokenizer)
        self.writer, self.meta = writer, meta
        self._losses: list[list[Tensor]] = []

    @abstractmethod
    def _memorised(self, problem: P) -> list[Row]:
        """The rows that the inner loop reads."""

    @abstractmethod
    def _questions(self, problem: P) -> list[Row]:
        """One row a question, its target after the prompt."""

    def groups(self, problems: Sequence[P]) -> list[Sequence[P]]:
        """All problems where they are stacked, else each on its own."""
        self._losses.clear()
        return self._groups(problems)

    def memorise(self, group: Sequence[P], *, training: bool) -> Weights:
        """The weights that hold what `group` gives; the initial ones in a training without the inner loop."""
        if training and not self.meta:
            return self.writer.start(len(group))
        adapted = self._adapt(group, training=training)
        if training:
            self._losses.append(adapted.losses)
        return adapted.weights

    @property
    def measured(self) -> dict[str, float]:
        """First and last inner loss of the last training batch, the mean over its problems."""
        count = sum(losses[0].numel() for losses in self._losses)
        places = {"inner_loss_first": 0, "inner_loss_last": -1} if count else {}
        return {name: sum(losses[at].sum().item() for losses in self._losses) / count for name, at in places.items()}

    def respond(self, problems: Sequence[P], new_tokens: int) -> Responses:
        """Write once a problem, then answer all its questions from the adapted weights."""
        responses: Responses = []
        for group in self._groups(problems):
            responses += self._continued(self.memorise(group, training=False), group, new_tokens)
        return responses

    def plan(self, problems: Sequence[P], together: int) -> None:
        """Settle what `inner.stack` and `inner.unroll=auto` leave open by the largest of `problems`, of which
        `together` may be in a batch.
        """
        ordered = sorted(problems, key=lambda problem: sum(len(row.ids) for row in self.rows(problem)))
        self.writer.stack_if_it_pays(self._memorised(ordered[-1]))
        if self.writer.inner.unroll is Unroll.auto:
            group = ordered[-together if self.writer.stacked else -1 :]
            self.writer.plan(self._given(group), len(group), lambda fast: self.answer_loss(fast, group))

    def _continued(self, fast: Weights, group: Sequence[P], new_tokens: int) -> Responses:
        """What follows the questions."""
        prompts = [[row.prompt for row in self._questions(problem)] for problem in group]
        return self.decoded(fast, prompts, new_tokens, stacked=self.writer.stacked)

    def _given(self, group: Sequence[P]) -> Rows:
        """What the inner loop reads of one problem or of a stack of them; the loss is the mean over rows."""
        return self.writer.rows([self._memorised(problem) for problem in group])

    def _groups(self, problems: Sequence[P]) -> list[Sequence[P]]:
        return [problems] if self.writer.stacked else [[problem] for problem in problems]

    def _adapt(self, group: Sequence[P], *, training: bool) -> Adapted:
        return self.writer.write(self._given(group), tasks=len(group), training=training)


class PromptLearner(Learner[P]):
    """Reads what is given in front of every question."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: "PreTrainedTokenizerBase",
        weights: Weights,
        *,
        answer_weight: float = 1.0,
    ) -> None:
        """Args:
        model: the network.
        tokenizer: its own.
        weights: those that are trained; the others stay as they are in the network.
        answer_weight: weight of an answer's token in the mean over its row.
        """
        super().__init__(model, tokenizer)
        self.weights = weights
        self.tensors = tensors_for(model.network, int(tokenizer.eos_token_id), answer_weight)

    @abstractmethod
    def rows(self, problem: P, reserve: int = 0) -> list[Row]:
        """One row a question, what is given in its prompt; `reserve` tokens are left for the answer."""

    def groups(self, problems: Sequence[P]) -> list[Sequence[P]]:
        """The whole batch."""
        return [problems]

    def memorise(self, group: Sequence[P], *, training: bool) -> Weights:
        """Nothing is written: what is given stands in the prompt."""
        return self.weights

    def answer_loss(self, fast: Weights, group: Sequence[P]) -> Tensor:
        """Fine-tuning: the sum over problems of the mean over their questions; []."""
        tasks = [self.rows(problem) for problem in group]
        shares = [1 / len(rows) for rows in tasks for _ in rows]
        padded = to_rows([row for rows in tasks for row in rows], shares=shares, **self.tensors)
        with needing(Need.first):
            return mean_loss(self.model.losses, fast, padded)

    def respond(self, problems: Sequence[P], new_tokens: int) -> Responses:
        """Read what is given again for every question."""
        tasks = [self.rows(problem, new_tokens) for problem in problems]
        (texts,) = self.decoded(self.weights, [[row.prompt for rows in tasks for row in rows]], new_tokens)
        rest = iter(texts)
        return [[next(rest) for _ in rows] for rows in tasks]


@contextmanager
def evaluating(module: nn.Module, *, dropout: bool) -> Iterator[None]:
    """Within this block `module` evaluates, with `dropout` on or off; then it is in the mode it was in before."""
    training = module.training
    module.train(dropout)
    try:
        yield
    finally:
        module.train(training)
