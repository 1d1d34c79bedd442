"""Learners: what they read, say, learn and leave alone."""

import logging
from collections.abc import Callable

import pytest
import torch

from perk.build import Parts
from perk.config import AdapterConfig, EvaluationConfig, Learner, MethodConfig, ModelConfig, Target, TrainConfig
from perk.evaluate import respond
from perk.methods import InContext
from perk.objective import Weigher
from tests.learners import losses_of
from tests.perk.miniature import WINDOW, close, meta_gradient, parts_of, perk_of, problems, write_model, written


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Parts]:
    """Settings of the inner loop -> parts of one of the models."""
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param)
    return lambda **how: parts_of(folder, **how)


# ---- what a learner reads, says and leaves alone


def test_the_answer_is_given_without_the_context(make: Callable[..., Parts]) -> None:
    """The outer loss depends on the segments through the written adapter alone."""
    parts, problem = make(), problems()[0]
    learner = perk_of(parts)
    assert [row.name for row in learner.rows(problem)] == [f"a, segment {i}" for i in range(5)] + ["a/0", "a/1"]
    text = parts.templates.tokenizer.decode(learner.rows(problem)[-1].prompt)
    assert text.startswith("5 documents") and not any(segment in text for segment in problem.segments)
    without = make(method=MethodConfig(meta=False))
    (plain,) = losses_of(without.learner, [problem])
    (meta,) = losses_of(learner, [problem])
    start = learner.answer_loss(learner.writer.start(1), [problem])
    assert plain.item() == start.item() != meta.item()


def test_without_meta_learning_the_adapter_alone_learns_and_contexts_are_still_read(
    make: Callable[..., Parts],
) -> None:
    batch = problems()
    parts = make(method=MethodConfig(meta=False))
    assert parts.rates is not None and not parts.rates.numbers.requires_grad
    _, gradient = meta_gradient(parts, batch)
    for name, value in gradient.items():
        assert bool(value.any()) is not name.startswith("weigher."), name
    assert parts.learner.measured == {}
    start = perk_of(parts).writer.start(1)
    for problem in batch:
        assert any(not torch.equal(value, start[name]) for name, value in written(parts, problem).items())


def test_more_inner_steps_at_test_time_are_one_key_away(make: Callable[..., Parts]) -> None:
    found = []
    for steps in (0, 4, 6):
        parts = make(evaluation=EvaluationConfig(inner_steps=steps))
        found.append(written(parts, problems()[0]))
    close(found[1], found[0])
    assert any(not torch.equal(found[2][name], value) for name, value in found[0].items())


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
def test_the_reckoning_row_adapts_all_weights_and_weighs_no_token(make: Callable[..., Parts], stack: bool) -> None:
    method = MethodConfig(adapter=False, token_weights=False)
    parts = make(method=method, steps=2, lr=0.001, stack=stack)
    assert parts.weigher is None and parts.model.adapter is None
    assert set(perk_of(parts).writer.slow) == {name for name, _ in parts.model.network.named_parameters()}
    one, two = meta_gradient(parts, problems()), meta_gradient(make(method=method, steps=2, lr=0.001), problems())
    assert one[0] == pytest.approx(two[0], rel=1e-12)
    close(one[1], two[1])


@pytest.mark.parametrize("kind", [Learner.perk, Learner.in_context])
@pytest.mark.parametrize("evaluation_dropout", [False, True])
def test_evaluation_changes_no_weight_and_has_dropout_off(
    make: Callable[..., Parts], kind: Learner, evaluation_dropout: bool
) -> None:
    method = MethodConfig(learner=kind)
    parts = make(method=method, lora=AdapterConfig(rank=2, alpha=16, dropout=0.5), stack=True, lr=0.3)
    config = TrainConfig(
        method=method,
        model=ModelConfig(evaluation_dropout=evaluation_dropout),
        evaluation=EvaluationConfig(max_new_tokens=8, batch_problems=2),
    )
    network = parts.model.network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seeds = torch.get_rng_state()
    first, second = ([item.more["response"] for item in respond(parts, problems(), config)] for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and all(value.grad is None for value in network.parameters())
    assert (first == second) is not evaluation_dropout
    assert torch.equal(seeds, torch.get_rng_state()) is not evaluation_dropout


# ---- context in the prompt


def in_context(parts: Parts) -> InContext:
    assert isinstance(parts.learner, InContext)
    return parts.learner


def test_in_context_losses_are_summed_over_problems(make: Callable[..., Parts]) -> None:
    parts, batch = make(method=MethodConfig(learner=Learner.in_context, target=Target.answer)), problems()[1:]
    expected = 0.0
    for problem in batch:
        for row in in_context(parts).rows(problem):
            scores = parts.model.network(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            said = range(row.scored_from, len(row.ids))
            expected -= sum(scores[place - 1, row.ids[place]].item() for place in said) / len(said)
    (loss,) = losses_of(in_context(parts), batch)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_context_beyond_the_window_loses_its_beginning_and_the_log_says_so_once(
    make: Callable[..., Parts], caplog: pytest.LogCaptureFixture
) -> None:
    parts, batch = make(method=MethodConfig(learner=Learner.in_context, target=Target.answer)), problems()
    learner, read = in_context(parts), parts.templates.tokenizer.decode
    with caplog.at_level(logging.WARNING):
        whole, cut = learner.rows(batch[1])[0], learner.rows(batch[0])[0]
        assert len(whole.ids) < WINDOW == len(cut.ids) and learner.cut, len(whole.ids)
        assert read(whole.prompt).startswith(batch[1].segments[0])
        assert read(cut.prompt).endswith("It was late.\n\nQuestion: Where is Mary?\nAnswer:")
        learner.respond(batch, 6)
    (message,) = [record.message for record in caplog.records]
    assert "a/0: the model reads 80 tokens, so the first" in message
    assert len(learner.rows(batch[0], reserve=20)[0].prompt) == WINDOW - 20


def test_retrieval_shows_the_best_segments_in_the_order_of_the_context(make: Callable[..., Parts]) -> None:
    parts = make(method=MethodConfig(learner=Learner.in_context, target=Target.answer, segments=2))
    problem = problems()[0]
    garden, read = problem.questions[1], parts.templates.tokenizer.decode
    row = in_context(parts).rows(problem)[1]
    shown = [segment for segment in problem.segments if segment in read(row.prompt)]
    assert len(shown) == 2 and problem.segments[4] in shown, garden.text
    assert read(row.prompt).index(shown[0]) < read(row.prompt).index(shown[1])


def test_token_weights_are_left_out_where_they_are_not_wanted(make: Callable[..., Parts]) -> None:
    assert isinstance(make().weigher, Weigher)
    parts = make(method=MethodConfig(token_weights=False))
    assert parts.weigher is None and parts.learner.writer.also == []  # type: ignore[union-attr]


@pytest.mark.parametrize("make", ["mamba"], indirect=True)
def test_a_state_space_model_reads_contexts_of_any_length_in_its_prompt(make: Callable[..., Parts]) -> None:
    method = MethodConfig(learner=Learner.in_context, target=Target.answer, adapter=False, token_weights=False)
    parts, batch = make(method=method), problems()
    loss, gradient = meta_gradient(parts, batch)
    assert loss > 0 and all(value.any() for value in gradient.values())
    answers = parts.learner.respond(batch, 5)
    assert [len(texts) for texts in answers] == [2, 1, 1] and not in_context(parts).cut
    assert answers == [*parts.learner.respond(batch[:1], 5), *parts.learner.respond(batch[1:], 5)]
