"""Learners: what turns a batch of problems into outer losses, and questions into answers."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.bilevel import InnerConfig, Unroll
from common.inner import Adapted
from common.language.batch import Row, Rows, tensors_for, to_rows
from common.language.decode import continuations
from common.language.model import LanguageModel
from common.language.objective import known, mean_loss
from common.language.writer import Writer
from common.rates import LearnedRates
from common.twice.policy import Need, needing
from common.weights import Weights, select
from reckoning.config import Knowledge, MethodConfig, Target
from reckoning.problems import Problem
from reckoning.templates import Templates

Responses = list[list[str]]
"""[problems][questions] decoded text."""


@dataclass(frozen=True)
class Encoded:
    """How well a fact is known, before its knowledge set is encoded and after (sheet section 8.11)."""

    loss_before: float
    """Mean negative log-likelihood of the fact's tokens after its index prefix."""
    loss_after: float
    exact_before: bool
    """Greedy decoding from the index prefix writes the fact."""
    exact_after: bool


class Learner(Protocol):
    """What the training loop and the evaluation ask for."""

    measured: dict[str, float]
    """Numbers of the last training batch for the log, such as the first and last inner loss."""

    def rows(self, problem: Problem) -> list[Row]:
        """Every row of the problem that training or evaluation reads."""
        ...

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """Outer losses whose sum is the batch's loss (a sum over problems); each may be sent backward at once."""
        ...

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Greedy answers to all questions; no weight changes."""
        ...


class GivenKnowledge:
    """Which sentences a learner is given for a problem (`method.knowledge`)."""

    def __init__(self, kind: Knowledge, splits: Mapping[str, Sequence[Problem]], seed: int) -> None:
        """Random knowledge is drawn from all sentences of the problem's own split; splits share no theory."""
        self.kind, self.seed = kind, seed
        self._pool: dict[str, list[str]] = {}
        for problems in splits.values() if kind is Knowledge.random else ():
            sentences = [fact for problem in problems for fact in problem.facts]
            self._pool |= {problem.theory: sentences for problem in problems}

    def of(self, problem: Problem) -> tuple[str, ...]:
        """The given sentences; random ones depend on the split, the problem's id and the seed alone."""
        if self.kind is Knowledge.none:
            return ()
        if self.kind is Knowledge.random:
            rng = random.Random(f"{self.seed}/random/{problem.id}")
            return tuple(rng.choices(self._pool[problem.theory], k=len(problem.facts)))
        return problem.facts


class Reckoning:
    """Writes the knowledge into the weights, then answers without it (sheet section 1.3)."""

    def __init__(
        self,
        model: LanguageModel,
        rates: LearnedRates,
        templates: Templates,
        inner: InnerConfig,
        method: MethodConfig,
        knowledge: GivenKnowledge,
        evaluation_steps: int = 0,
    ) -> None:
        """`evaluation_steps`: inner steps at test time, 0 for as many as in training."""
        self.model, self.templates, self.method, self.knowledge = model, templates, method, knowledge
        self.writer = Writer(
            model,
            rates,
            inner,
            lambda weights, rows: mean_loss(model.losses, weights, rows),
            pad=templates.eos,
            answer_weight=method.answer_weight,
            evaluation_steps=evaluation_steps,
        )
        self.measured: dict[str, float] = {}

    def rows(self, problem: Problem) -> list[Row]:
        """Facts, questions with targets, and facts to recite on their own."""
        return [*self._facts(problem), *self._questions(problem), *self._recited(problem)[0]]

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
        """Encode every knowledge set once, then answer all its questions from the adapted weights."""
        responses: Responses = []
        for group in self._groups(problems):
            fast = self._adapt(group, training=False).weights
            prompts = [[row.prompt for row in self._questions(problem)] for problem in group]
            responses += _decoded(self.model, fast, prompts, self.templates, new_tokens, stacked=self.writer.stacked)
        return responses

    @torch.no_grad()
    def encoded(self, problems: Sequence[Problem]) -> list[list[Encoded]]:
        """For every problem all its given facts: from the initial weights, and from those that have encoded them."""
        found: list[list[Encoded]] = []
        for group in self._groups(problems):
            facts = [self._facts(problem) for problem in group]
            rows, start = self.writer.rows(facts), self.writer.start(len(group))
            fast = self._adapt(group, training=False).weights
            (loss, exact), (loss_after, exact_after) = (known(self.model.network, w, rows) for w in (start, fast))
            columns = [x.reshape(len(group), -1).tolist() for x in (loss, loss_after, exact, exact_after)]
            for own, *values in zip(facts, *columns, strict=True):
                found.append([Encoded(*of_fact) for _, *of_fact in zip(own, *values, strict=False)])
        return found

    def plan(self, problems: Sequence[Problem], together: int) -> None:
        """Settle what `inner.stack` and `inner.unroll=auto` leave open by the largest of `problems`, of which
        `together` may be in a batch.
        """
        ordered = sorted(problems, key=lambda problem: sum(len(row.ids) for row in self.rows(problem)))
        self.writer.stack_if_it_pays(self._facts(ordered[-1]))
        if self.writer.inner.unroll is Unroll.auto:
            group = ordered[-together if self.writer.stacked else -1 :]
            self.writer.plan(self._given(group), len(group), lambda fast: self._answer(fast, group))

    def _answer(self, fast: Weights, group: Sequence[Problem]) -> Tensor:
        """The outer loss; [] or [problems]."""
        loss = self._mean_loss(fast, [self._questions(problem) for problem in group])
        recited = [self._recited(problem) for problem in group]
        if any(rows for rows, _ in recited):
            loss = loss + self._mean_loss(fast, *zip(*recited, strict=True))
        return loss

    def _groups(self, problems: Sequence[Problem]) -> list[Sequence[Problem]]:
        return [problems] if self.writer.stacked else [[problem] for problem in problems]

    def _adapt(self, group: Sequence[Problem], *, training: bool) -> Adapted:
        return self.writer.write(self._given(group), tasks=len(group), training=training)

    def _given(self, group: Sequence[Problem]) -> Rows:
        return self.writer.rows([self._facts(problem) for problem in group])

    def _facts(self, problem: Problem) -> list[Row]:
        return [self.templates.fact(index, fact) for index, fact in enumerate(self.knowledge.of(problem))]

    def _questions(self, problem: Problem) -> list[Row]:
        target = Target.single if self.method.target is Target.sum else self.method.target
        return [self.templates.question(problem, question, target) for question in problem.questions]

    def _recited(self, problem: Problem) -> tuple[list[Row], list[float]]:
        """With the literal sum: relevant facts and their shares, fact mean inside a question, then question mean."""
        if self.method.target is not Target.sum:
            return [], []
        asked = [(index, question) for question in problem.questions for index in question.relevant]
        rows = [self.templates.fact(index, problem.facts[index]) for index, _ in asked]
        return rows, [1 / (len(question.relevant) * len(problem.questions)) for _, question in asked]

    def _mean_loss(
        self, fast: Weights, tasks: Sequence[Sequence[Row]], shares: Sequence[Sequence[float]] | None = None
    ) -> Tensor:
        return mean_loss(self.model.losses, fast, self.writer.rows(tasks, shares))


class InContext:
    """Fine-tuned in-context reasoning, and with less input the No-Facts and No-Question baselines (sheet section 3)."""

    def __init__(
        self, model: LanguageModel, templates: Templates, method: MethodConfig, knowledge: GivenKnowledge
    ) -> None:
        """The whole model is trained on question and target rows."""
        self.model, self.templates, self.method, self.knowledge = model, templates, method, knowledge
        self.weights = select(model.network)
        self.tensors = tensors_for(model.network, templates.eos, method.answer_weight)
        self.measured: dict[str, float] = {}

    def rows(self, problem: Problem) -> list[Row]:
        """One row a question: what is given, and the target."""
        given, method = self.knowledge.of(problem), self.method
        return [
            self.templates.in_context(given, problem, question, method.target, ask=method.question)
            for question in problem.questions
        ]

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """One loss for the batch: the sum over problems of the mean over their questions."""
        tasks = [self.rows(problem) for problem in problems]
        shares = [1 / len(rows) for rows in tasks for _ in rows]
        padded = to_rows([row for rows in tasks for row in rows], shares=shares, **self.tensors)
        with needing(Need.first):
            loss = mean_loss(self.model.losses, self.weights, padded)
        yield loss

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Read knowledge and question again for every question."""
        tasks = [self.rows(problem) for problem in problems]
        prompts = [[row.prompt for rows in tasks for row in rows]]
        (texts,) = _decoded(self.model, self.weights, prompts, self.templates, new_tokens, stacked=False)
        rest = iter(texts)
        return [[next(rest) for _ in rows] for rows in tasks]


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
