"""Several questions about a knowledge set: one adapted model for all of them, and the answers of single questions."""

from collections.abc import Callable
from typing import Any

import pytest

from common.language import writer
from common.language.learner import PromptLearner
from common.run.items import Item
from reckoning.build import Parts
from reckoning.config import DataConfig, EvaluationConfig, Learner, MethodConfig, TrainConfig
from reckoning.evaluate import respond
from reckoning.problems import Problem, group_questions
from tests.reckoning.test_methods import WORDS, learner_of


@pytest.fixture
def adapted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many knowledge sets every call of the inner loop writes into weights."""
    calls: list[int] = []
    adapt = writer.adapt

    def counted(loss: Any, start: Any, parts: Any, **settings: Any) -> Any:
        calls.append(len(parts[0].ids) if parts[0].ids.dim() == 3 else 1)
        return adapt(loss, start, parts, **settings)

    monkeypatch.setattr(writer, "adapt", counted)
    return calls


def answers(learner: Any, problems: list[Problem], questions_per_set: int) -> list[Item]:
    config = TrainConfig(
        data=DataConfig(labels=WORDS),
        method=learner.method,
        evaluation=EvaluationConfig(max_new_tokens=12, batch_problems=3, questions_per_set=questions_per_set),
    )
    rates = getattr(learner, "rates", None)
    return respond(Parts(learner.model, rates, learner.templates, learner, label_tokens=2), problems, config)  # type: ignore[arg-type]


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
def test_grouped_questions_get_the_answers_of_single_ones_from_one_inner_loop_a_knowledge_set(
    tokenizer: Any, problems: Callable[[str], list[Problem]], adapted: list[int], stack: bool
) -> None:
    sets = problems("test")
    single = group_questions(sets, 1)
    assert (len(sets), len(single)) == (4, 12)
    learner = learner_of(tokenizer, MethodConfig(), lr=0.3, stack=stack)

    alone = answers(learner, single, 1)
    assert sum(adapted) == 12
    adapted.clear()
    pairs = answers(learner, single, 2)
    assert sum(adapted) == 8, "two, and the third by itself"
    adapted.clear()
    together = answers(learner, single, 0)
    assert sum(adapted) == 4, "once a knowledge set, although training problems have one question each"
    assert len({item.more["response"] for item in alone}) > 1
    assert alone == pairs == together == answers(learner, sets, 0)
    assert [item.id for item in together] == [p.questions[0].id for p in single]


def test_in_context_reads_the_knowledge_for_every_question_as_before(
    tokenizer: Any, problems: Callable[[str], list[Problem]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decoded = PromptLearner.decoded

    def counted(learner: Any, weights: Any, prompts: Any, *rest: Any, **settings: Any) -> Any:
        sizes.append(sum(map(len, prompts)))
        return decoded(learner, weights, prompts, *rest, **settings)

    monkeypatch.setattr(PromptLearner, "decoded", counted)
    learner = learner_of(tokenizer, MethodConfig(learner=Learner.in_context))
    single = answers(learner, group_questions(problems("test"), 1), 0)
    assert sizes == [3, 3, 3, 3], "batches of evaluation.batch_problems rows stay as large as they were"
    assert single == answers(learner, problems("test"), 0)
