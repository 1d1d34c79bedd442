"""Learners: what turns a batch of problems into outer losses, and questions into answers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.engine.rates import LearnedRates
from common.engine.settings import InnerConfig
from common.engine.weights import Weights, select
from common.language.batch import Row
from common.language.learner import MemoryLearner, PromptLearner
from common.language.model import LanguageModel
from common.language.objective import known
from common.language.writer import Writer
from reckoning.config import Knowledge, MethodConfig, Target
from reckoning.objective import answer_loss, knowledge_loss, recited_shares
from reckoning.problems import Problem
from reckoning.templates import Templates


@dataclass(frozen=True)
class Encoded:
    """How well a fact is known, before its knowledge set is encoded and after."""

    loss_before: float
    """Mean negative log-likelihood of the fact's tokens after its index prefix."""
    loss_after: float
    exact_before: bool
    """Greedy decoding from the index prefix writes the fact."""
    exact_after: bool


@dataclass(frozen=True)
class Answered:
    """What a knowledge set was asked, from weights that have encoded it."""

    texts: list[str]
    """Greedy answers, one a question."""
    encoded: list[Encoded]
    """One a given fact."""


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


class Reckoning(MemoryLearner[Problem]):
    """Writes the knowledge into the weights, then answers without it (paper, section 3)."""

    def __init__(
        self,
        model: LanguageModel,
        rates: LearnedRates,
        templates: Templates,
        inner: InnerConfig,
        method: MethodConfig,
        knowledge: GivenKnowledge,
        inner_steps: int = 0,
        *,
        capture: bool = False,
    ) -> None:
        """`inner_steps`: inner steps at test time, 0 for as many as in training; `capture` is as in `Writer`."""
        self.templates, self.method, self.knowledge = templates, method, knowledge
        writer = Writer(
            model,
            rates,
            inner,
            lambda weights, facts: knowledge_loss(model.losses, weights, facts),
            pad=templates.eos,
            answer_weight=method.answer_weight,
            inner_steps=inner_steps,
            capture=capture,
        )
        super().__init__(model, templates.tokenizer, writer, meta=method.meta)

    def rows(self, problem: Problem) -> list[Row]:
        """Facts, questions with targets, and facts to recite on their own."""
        return [*self._memorised(problem), *self._questions(problem), *self._recited(problem)]

    def answer_loss(self, fast: Weights, group: Sequence[Problem]) -> Tensor:
        """The outer loss (equation 5), []."""
        questions = self.writer.rows([self._questions(problem) for problem in group])
        facts = [self._recited(problem) for problem in group]
        recited = None
        if any(facts):
            recited = self.writer.rows(facts, [recited_shares(problem.questions) for problem in group])
        return answer_loss(self.model.losses, fast, questions, recited).sum()

    def respond_and_recall(self, problems: Sequence[Problem], new_tokens: int) -> list[Answered]:
        """`respond`, and how well all given facts are known: from the initial weights, and from those that answer."""
        found: list[Answered] = []
        for group in self._groups(problems):
            fast = self.memorise(group, training=False)
            texts, encoded = self._continued(fast, group, new_tokens), self._encoded(fast, group)
            found += map(Answered, texts, encoded)
        return found

    @torch.no_grad()
    def _encoded(self, fast: Weights, group: Sequence[Problem]) -> list[list[Encoded]]:
        facts = [self._memorised(problem) for problem in group]
        rows, start = self.writer.rows(facts), self.writer.start(len(group))
        (loss, exact), (loss_after, exact_after) = (known(self.model.network, w, rows) for w in (start, fast))
        columns = [x.reshape(len(group), -1).tolist() for x in (loss, loss_after, exact, exact_after)]
        found = []
        for own, *values in zip(facts, *columns, strict=True):
            found.append([Encoded(*of_fact) for _, *of_fact in zip(own, *values, strict=False)])
        return found

    def _memorised(self, problem: Problem) -> list[Row]:
        return [self.templates.fact(index, fact) for index, fact in enumerate(self.knowledge.of(problem))]

    def _questions(self, problem: Problem) -> list[Row]:
        target = Target.single if self.method.target is Target.sum else self.method.target
        return [self.templates.question(problem, question, target) for question in problem.questions]

    def _recited(self, problem: Problem) -> list[Row]:
        """With the literal sum: the relevant facts of every question."""
        if self.method.target is not Target.sum:
            return []
        relevant = [index for question in problem.questions for index in question.relevant]
        return [self.templates.fact(index, problem.facts[index]) for index in relevant]


class InContext(PromptLearner[Problem]):
    """Fine-tuned in-context reasoning, and with less input the No-Facts and No-Question baselines (section 4)."""

    def __init__(
        self, model: LanguageModel, templates: Templates, method: MethodConfig, knowledge: GivenKnowledge
    ) -> None:
        """The whole model is trained on question and target rows."""
        super().__init__(model, templates.tokenizer, select(model.network), answer_weight=method.answer_weight)
        self.templates, self.method, self.knowledge = templates, method, knowledge

    def rows(self, problem: Problem, reserve: int = 0) -> list[Row]:
        """One row a question: what is given, and the target; sentences are short, so nothing is reserved."""
        given, method = self.knowledge.of(problem), self.method
        return [
            self.templates.in_context(given, problem, question, method.target, ask=method.question)
            for question in problem.questions
        ]
