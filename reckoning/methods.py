"""Learners: what turns a batch of problems into outer losses, and questions into answers."""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from common.bilevel import InnerConfig, Unroll
from common.inner import adapt
from common.rates import LearnedRates
from common.rules import make_rule
from common.weights import Weights, select, stack
from reckoning.batch import Rows, to_rows, to_stack
from reckoning.config import Knowledge, MethodConfig, Target
from reckoning.decode import greedy
from reckoning.model import LanguageModel
from reckoning.objective import logits, mean_loss
from reckoning.problems import Problem, Question
from reckoning.templates import Row, Templates

Responses = list[list[str]]
"""[problems][questions] decoded text."""


class Learner(Protocol):
    """The two things the training loop and the evaluation ask for."""

    measured: dict[str, float]
    """Numbers of the last batch for the log, such as the first and last inner loss."""

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """Outer losses whose sum is the batch's loss (a sum over problems); each may be sent backward at once."""
        ...

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Greedy answers to all questions; no weight changes."""
        ...


class GivenKnowledge:
    """Which sentences a learner is given for a problem (`method.knowledge`)."""

    def __init__(self, kind: Knowledge, pool: Sequence[Problem], seed: int) -> None:
        """`pool`: the split's problems, from whose sentences random knowledge is drawn."""
        self.kind, self.seed = kind, seed
        self.sentences = [fact for p in pool for fact in p.facts] if kind is Knowledge.random else []

    def of(self, problem: Problem) -> tuple[str, ...]:
        """The given sentences; random ones depend on the problem's id and the seed alone."""
        if self.kind is Knowledge.none:
            return ()
        if self.kind is Knowledge.random:
            return tuple(random.Random(f"{self.seed}/random/{problem.id}").choices(self.sentences, k=len(problem.facts)))
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
        self.model, self.rates, self.templates = model, rates, templates
        self.inner, self.method, self.knowledge = inner, method, knowledge
        self.evaluation_steps = evaluation_steps or inner.steps
        self.rule = make_rule(inner)
        self.slow = select(model.network, inner.weights)
        first = next(model.network.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.measured: dict[str, float] = {}

    def _rows(self, tasks: Sequence[Sequence[Row]]) -> Rows:
        make = to_stack if self.inner.stack else to_rows
        return make(
            tasks if self.inner.stack else tasks[0], pad=self.templates.eos, device=self.device, dtype=self.dtype
        )  # type: ignore[operator]

    def _fact_rows(self, problem: Problem) -> list[Row]:
        return [self.templates.fact(i, fact) for i, fact in enumerate(self.knowledge.of(problem))]

    def _adapted(self, problems: Sequence[Problem], *, unroll: Unroll, steps: int) -> Weights:
        facts = self._rows([self._fact_rows(problem) for problem in problems])
        adapted = adapt(
            lambda fast: mean_loss(self.model.network, fast, facts),
            stack(self.slow, len(problems)) if self.inner.stack else self.slow,
            steps=steps,
            rule=self.rule,
            rates=self.rates,
            unroll=unroll,
            keep=self.inner.keep if unroll is Unroll.truncate else 0,
        )
        self.measured["inner_loss_first"] = adapted.losses[0].mean().item()
        self.measured["inner_loss_last"] = adapted.losses[-1].mean().item()
        return adapted.weights

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """One loss a problem, or one for the whole stack; a problem's loss is the mean over its questions."""
        for group in [problems] if self.inner.stack else [[problem] for problem in problems]:
            fast = self._adapted(group, unroll=self.inner.unroll, steps=self.inner.steps)
            target = Target.single if self.method.target is Target.sum else self.method.target
            rows = [[self.templates.question(p, q, target) for q in p.questions] for p in group]
            loss = mean_loss(self.model.network, fast, self._rows(rows)).sum()
            if self.method.target is Target.sum:
                relevant = [[self.templates.fact(i, p.facts[i]) for q in p.questions for i in q.relevant] for p in group]
                loss = loss + mean_loss(self.model.network, fast, self._rows(relevant)).sum()
            yield loss

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Encode every knowledge set once, then answer all its questions from the adapted weights."""
        responses: Responses = []
        for group in [problems] if self.inner.stack else [[problem] for problem in problems]:
            fast = self._adapted(group, unroll=Unroll.none, steps=self.evaluation_steps)
            prompts = [[self.templates.question(p, q, Target.single).prompt for q in p.questions] for p in group]
            if self.inner.stack:
                found = greedy(
                    lambda ids, fast=fast: logits(self.model.network, fast, ids), prompts, **self._limits(new_tokens)
                )
            else:
                found = greedy(
                    lambda ids, fast=fast: logits(self.model.network, fast, ids[0])[None],
                    prompts,
                    **self._limits(new_tokens),
                )
            responses += _texts(found, self.templates)
        return responses

    def _limits(self, new_tokens: int) -> dict:
        return {
            "eos": self.templates.eos,
            "new_tokens": new_tokens,
            "window": self.model.window,
            "device": self.device,
        }


class InContext:
    """Fine-tuned in-context reasoning, and with less input the No-Facts and No-Question baselines (sheet section 3)."""

    def __init__(
        self, model: LanguageModel, templates: Templates, method: MethodConfig, knowledge: GivenKnowledge
    ) -> None:
        """The whole model is trained on question and target rows."""
        self.model, self.templates, self.method, self.knowledge = model, templates, method, knowledge
        self.weights = select(model.network)
        first = next(model.network.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.measured: dict[str, float] = {}

    def _row(self, problem: Problem, question: Question, target: Target) -> Row:
        return self.templates.in_context(
            self.knowledge.of(problem), problem, question, target, ask=self.method.question
        )

    def losses(self, problems: Sequence[Problem]) -> Iterator[Tensor]:
        """One loss for the batch: the sum over problems of the mean over their questions."""
        tasks = [[self._row(p, q, self.method.target) for q in p.questions] for p in problems]
        flat = [row for rows in tasks for row in rows]
        rows = to_rows(flat, pad=self.templates.eos, device=self.device, dtype=self.dtype)
        share = torch.tensor([1 / len(rows) for rows in tasks for _ in rows], device=self.device, dtype=self.dtype)
        yield mean_loss(self.model.network, self.weights, Rows(rows.ids, rows.scored, share))

    def respond(self, problems: Sequence[Problem], new_tokens: int) -> Responses:
        """Read knowledge and question again for every question."""
        prompts = [[self._row(p, q, Target.single).prompt] for p in problems for q in p.questions]
        found = greedy(
            lambda ids: logits(self.model.network, self.weights, ids[:, 0])[:, None],
            prompts,
            eos=self.templates.eos,
            new_tokens=new_tokens,
            window=self.model.window,
            device=self.device,
        )
        texts = iter(_texts(found, self.templates))
        return [[next(texts)[0] for _ in problem.questions] for problem in problems]


def _texts(found: list[list[list[int]]], templates: Templates) -> Responses:
    return [[templates.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows] for rows in found]
