"""Room 4, learners: what turns a batch of problems into outer losses, and questions into answers."""

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

from common.bilevel import InnerConfig, Unroll
from common.inner import Adapted
from common.language.batch import Row, Rows, tensors_for, to_rows
from common.language.decode import continuations
from common.language.model import LanguageModel
from common.language.objective import Losses, mean_loss
from common.language.writer import Writer
from common.rates import LearnedRates
from common.twice.policy import Need, needing
from common.weights import Weights, select
from perk.config import EvaluationConfig, MethodConfig
from perk.objective import Weigher, WeightedLosses
from perk.problems import Problem, Question
from perk.retrieval import Index
from perk.templates import Templates, token_shares

logger = logging.getLogger(__name__)
Responses = list[list[str]]
"""[problems][questions] decoded text."""


class Learner(Protocol):
    """What the training loop and the evaluation ask for."""

    measured: dict[str, float]
    learns: nn.Module
    """Whose parameters that ask for a gradient are the slow weights."""

    def rows(self, problem: Problem) -> list[Row]:
        """Every row of the problem that training reads."""
        ...

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """Outer losses whose sum is the batch's loss; each may be sent backward at once."""
        ...

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Greedy answers to all questions; no weight changes."""
        ...


class Perk:
    """Writes the context into the weights, then answers without it (sheet section 1.2)."""

    def __init__(
        self,
        model: LanguageModel,
        rates: LearnedRates,
        templates: Templates,
        inner: InnerConfig,
        method: MethodConfig,
        evaluation: EvaluationConfig,
        weigher: Weigher | None,
    ) -> None:
        """`weigher`: None weighs all tokens the same."""
        self.model, self.templates, self.method = model, templates, method
        self.micro_batch = evaluation.micro_batch
        self.learns = nn.ModuleList([model.network] if weigher is None else [model.network, weigher])
        self.memorised: Losses = model.losses if weigher is None else WeightedLosses(model.losses, weigher)
        self.writer = Writer(
            model,
            rates,
            inner,
            lambda weights, rows: mean_loss(self.memorised, weights, rows),
            pad=templates.eos,
            evaluation_steps=evaluation.inner_steps,
            others=[] if weigher is None else list(weigher.parameters()),
        )
        self.measured: dict[str, float] = {}

    def rows(self, problem: Problem) -> list[Row]:
        """Segments, and questions with targets."""
        return [*self.templates.segments(problem), *self._questions(problem)]

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """One loss a problem, or one for the whole stack; a problem's loss is the mean over its questions."""
        first = last = 0.0
        for group in self._groups(problems):
            if not self.method.meta:
                yield self._answer(self.writer.start(len(group)), group).sum()
                continue
            adapted = self._adapt(group, training=True)
            yield self._answer(adapted.weights, group).sum()
            first += adapted.losses[0].sum().item()
            last += adapted.losses[-1].sum().item()
        if self.method.meta:
            self.measured = {"inner_loss_first": first / len(problems), "inner_loss_last": last / len(problems)}

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Read every context once, then answer all its questions from the adapted weights."""
        responses: Responses = []
        for group in self._groups(problems):
            fast = self._adapt(group, training=False).weights
            prompts = [[row.prompt for row in self._questions(problem)] for problem in group]
            responses += _decoded(self.model, fast, prompts, self.templates, new_tokens, stacked=self.writer.stacked)
        return responses

    def plan(self, problems: Sequence[Problem], together: int) -> None:
        """Settle what `inner.stack` and `inner.unroll=auto` leave open by the largest of `problems`, of which
        `together` may be in a batch.
        """
        ordered = sorted(problems, key=lambda problem: sum(map(len, problem.segments)))
        self.writer.stack_if_it_pays(self.templates.segments(ordered[-1]))
        if self.writer.inner.unroll is Unroll.auto:
            group = ordered[-together if self.writer.stacked else -1 :]
            self.writer.plan(self._given(group), len(group), lambda fast: self._answer(fast, group))

    def _answer(self, fast: Weights, group: Sequence[Problem]) -> Tensor:
        """The outer loss; [] or [problems]."""
        return mean_loss(self.model.losses, fast, self.writer.rows([self._questions(problem) for problem in group]))

    def _groups(self, problems: Sequence[Problem]) -> list[Sequence[Problem]]:
        return [problems] if self.writer.stacked else [[problem] for problem in problems]

    def _adapt(self, group: Sequence[Problem], *, training: bool) -> Adapted:
        size = self.writer.inner.micro_batch if training else self.micro_batch
        return self.writer.write(self._given(group), tasks=len(group), training=training, micro_batch=size)

    def _given(self, group: Sequence[Problem]) -> Rows:
        """Segments with the mean over all tokens of a context as the loss."""
        segments = [self.templates.segments(problem) for problem in group]
        return self.writer.rows(segments, [token_shares(rows) for rows in segments])

    def _questions(self, problem: Problem) -> list[Row]:
        return [self.templates.question(problem, each, self.method.target) for each in problem.questions]


class InContext:
    """Fine-tuned in-context reasoning; with `method.segments` on what BM25 finds (sheet section 3)."""

    def __init__(self, model: LanguageModel, templates: Templates, method: MethodConfig) -> None:
        """What of the model asks for a gradient is trained."""
        self.model, self.templates, self.method = model, templates, method
        self.learns = model.network
        self.weights = {name: w for name, w in select(model.network).items() if w.requires_grad}
        self.tensors = tensors_for(model.network, templates.eos)
        self.measured: dict[str, float] = {}
        self.cut = 0
        """Prompts that were cut because they did not fit the model's window."""

    def rows(self, problem: Problem, reserve: int = 0) -> list[Row]:
        """One row a question: context, question and target."""
        found = []
        for question in problem.questions:
            row, cut = self.templates.in_context(self._given(problem, question), question, self.method.target, reserve)
            self._note(cut, question.id)
            found.append(row)
        return found

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """One loss for the batch: the sum over problems of the mean over their questions."""
        tasks = [self.rows(problem) for problem in problems]
        shares = [1 / len(rows) for rows in tasks for _ in rows]
        padded = to_rows([row for rows in tasks for row in rows], shares=shares, **self.tensors)
        with needing(Need.first):
            loss = mean_loss(self.model.losses, self.weights, padded)
        yield loss

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Read the context again for every question."""
        tasks = [self.rows(problem, reserve=new_tokens) for problem in problems]
        prompts = [[row.prompt for rows in tasks for row in rows]]
        (texts,) = _decoded(self.model, self.weights, prompts, self.templates, new_tokens, stacked=False)
        rest = iter(texts)
        return [[next(rest) for _ in rows] for rows in tasks]

    def _given(self, problem: Problem, question: Question) -> list[str]:
        """The segments that stand in the prompt, in the order of the context."""
        if not self.method.segments:
            return list(problem.segments)
        places = Index(problem.segments).best(question.text, self.method.segments)
        return [problem.segments[place] for place in sorted(places)]

    def _note(self, cut: int, name: str) -> None:
        if cut and not self.cut:
            logger.warning(
                "%s: the model reads %d tokens, so the first %d of the context are left out, and so on for longer "
                "contexts; model.positions or model.yarn stretch rotary positions", name, self.templates.window, cut
            )  # fmt: skip
        self.cut += bool(cut)


def _decoded(
    model: LanguageModel,
    weights: Weights,
    prompts: Sequence[Sequence[Sequence[int]]],
    templates: Templates,
    new_tokens: int,
    *,
    stacked: bool,
) -> Responses:
    """Greedy continuations as text; `prompts` [tasks][rows], one task unless the weights are stacked."""
    found = continuations(model, weights, prompts, eos=templates.eos, new_tokens=new_tokens, stacked=stacked)
    return [[templates.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows] for rows in found]
