"""Learners: what turns a batch of problems into outer losses, and questions into answers."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from common.engine.inner import Adapted
from common.engine.rates import LearnedRates
from common.engine.settings import InnerConfig
from common.engine.weights import Weights, select
from common.language.batch import Row, Rows
from common.language.learner import MemoryLearner, PromptLearner
from common.language.model import LanguageModel
from common.language.objective import Losses
from common.language.writer import Writer
from perk.config import EvaluationConfig, MethodConfig
from perk.objective import Weigher, WeightedLosses, answer_loss, context_loss
from perk.problems import Problem, Question
from perk.retrieval import Index
from perk.templates import Templates, token_shares

logger = logging.getLogger(__name__)


class Perk(MemoryLearner[Problem]):
    """Writes the context into the weights, then answers without it (paper, section 3)."""

    def __init__(
        self,
        model: LanguageModel,
        rates: LearnedRates,
        templates: Templates,
        inner: InnerConfig,
        method: MethodConfig,
        evaluation: EvaluationConfig,
        weigher: Weigher | None,
        *,
        capture: bool = False,
    ) -> None:
        """`weigher`: None weighs all tokens the same; `capture` is as in `Writer`."""
        self.templates, self.method = templates, method
        self.micro_batch = evaluation.micro_batch
        self.halves = False
        """At test time: write the first half of the segments, then append the second."""
        self.memorised: Losses = model.losses if weigher is None else WeightedLosses(model.losses, weigher)
        writer = Writer(
            model,
            rates,
            inner,
            lambda weights, segments: context_loss(self.memorised, weights, segments),
            pad=templates.eos,
            inner_steps=evaluation.inner_steps,
            others=[] if weigher is None else list(weigher.parameters()),
            capture=capture,
        )
        super().__init__(model, templates.tokenizer, writer, meta=method.meta)
        if weigher is not None:
            self.learns = nn.ModuleList([model.network, weigher])

    def rows(self, problem: Problem) -> list[Row]:
        """Segments, and questions with targets."""
        return [*self._memorised(problem), *self._questions(problem)]

    def answer_loss(self, fast: Weights, group: Sequence[Problem]) -> Tensor:
        """The outer loss, []."""
        questions = self.writer.rows([self._questions(problem) for problem in group])
        return answer_loss(self.model.losses, fast, questions).sum()

    def _adapt(self, group: Sequence[Problem], *, training: bool) -> Adapted:
        if self.halves and not training:
            return self._in_halves(group)
        size = self.writer.inner.micro_batch if training else self.micro_batch
        return self.writer.write(self._given(group), tasks=len(group), training=training, micro_batch=size)

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Within it memories are written in two halves, one context at a time."""
        stacked, self.writer.stacked, self.halves = self.writer.stacked, False, True
        try:
            yield
        finally:
            self.writer.stacked, self.halves = stacked, False

    def _in_halves(self, group: Sequence[Problem]) -> Adapted:
        """As `Memory.append` does after `Reader.read`; a context of one segment has no second half."""
        (problem,) = group
        rows = self._memorised(problem)
        middle = (len(rows) + 1) // 2
        adapted = None
        for half in filter(None, (rows[:middle], rows[middle:])):
            start = adapted.weights if adapted else None
            given = self.writer.rows([half], [token_shares(half)])
            adapted = self.writer.write(given, tasks=1, training=False, micro_batch=self.micro_batch, start=start)
        assert adapted is not None, "a context has a segment"
        return adapted

    def _given(self, group: Sequence[Problem]) -> Rows:
        """Segments with the mean over all tokens of a context as the loss."""
        segments = [self._memorised(problem) for problem in group]
        return self.writer.rows(segments, [token_shares(rows) for rows in segments])

    def _memorised(self, problem: Problem) -> list[Row]:
        return self.templates.segments(problem)

    def _questions(self, problem: Problem) -> list[Row]:
        return [self.templates.question(problem, each, self.method.target) for each in problem.questions]


class InContext(PromptLearner[Problem]):
    """Fine-tuned in-context reasoning; with `method.segments` on what BM25 finds."""

    def __init__(self, model: LanguageModel, templates: Templates, method: MethodConfig) -> None:
        """What of the model asks for a gradient is trained."""
        trained = {name: weight for name, weight in select(model.network).items() if weight.requires_grad}
        super().__init__(model, templates.tokenizer, trained)
        self.templates, self.method = templates, method
        self.cut = False
        """A prompt was cut because it did not fit the model's window, and the log says so."""

    def rows(self, problem: Problem, reserve: int = 0) -> list[Row]:
        """One row a question: context, question and target."""
        found = []
        for question in problem.questions:
            row, cut = self.templates.in_context(self._given(problem, question), question, self.method.target, reserve)
            self._note(cut, question.id)
            found.append(row)
        return found

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
            self.cut = True
