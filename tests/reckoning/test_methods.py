"""Learners: their losses against plain autograd, both ways to run a batch, baselines' inputs, harmless evaluation."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from common.engine.rates import make_rates
from common.engine.settings import InnerConfig, RateSpace, RuleName, Unroll
from common.engine.weights import select
from common.errors import UserError
from common.language.batch import Row
from common.language.config import ModelConfig
from common.language.model import LanguageModel
from reckoning.build import Parts
from reckoning.config import (
    DataConfig,
    EvaluationConfig,
    Knowledge,
    Learner,
    MethodConfig,
    Target,
    TemplateConfig,
    TrainConfig,
)
from reckoning.evaluate import respond
from reckoning.methods import GivenKnowledge, InContext, Reckoning
from reckoning.problems import Problem
from reckoning.templates import Templates
from tests.learners import losses_of
from tests.reckoning.miniature import make_network

WORDS = {"true": "yes", "false": "no", "unknown": "none"}
Splits = Callable[[str], list[Problem]]


def learner_of(
    tokenizer: Any, method: MethodConfig, splits: dict[str, list[Problem]] | None = None, **inner: Any
) -> Any:
    """A learner around a fresh float64 model; the same weights every time."""
    network = make_network(len(tokenizer), dropout=inner.pop("dropout", 0.0)).double()
    model = LanguageModel(network=network, window=64)
    templates = Templates(TemplateConfig(), WORDS, tokenizer, 64)
    knowledge = GivenKnowledge(method.knowledge, splits or {}, seed=0)
    if method.learner is Learner.in_context:
        return InContext(model, templates, method, knowledge)
    config = InnerConfig(**{"steps": 2, "lr": 0.0625, **inner})
    rates = make_rates(config, list(select(network, config.weights))).double()
    return Reckoning(model, rates, templates, config, method, knowledge)


def nll(network: Any, weights: dict[str, Tensor], row: Row) -> Tensor:
    """Mean negative log-likelihood of a row's scored tokens, one row at a time and without padding."""
    ids = torch.tensor([row.ids])
    scores = functional_call(network, weights, (), {"input_ids": ids}).logits.log_softmax(-1)[0]
    places = range(row.scored_from, len(row.ids))
    return -torch.stack([scores[place - 1, row.ids[place]] for place in places]).mean()


def mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def by_hand(learner: Reckoning, problem: Problem, target: Target, *, steps: int, lr: float) -> Tensor:
    """The outer loss of one problem after plain gradient steps, everything written out."""
    network, templates = learner.model.network, learner.templates
    fast = dict(network.named_parameters())
    for _ in range(steps):
        inner = mean([nll(network, fast, templates.fact(i, fact)) for i, fact in enumerate(problem.facts)])
        gradients = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
        fast = {name: w - lr * g for (name, w), g in zip(fast.items(), gradients, strict=True)}
    losses = []
    for question in problem.questions:
        form = Target.multi if target is Target.multi else Target.single
        loss = nll(network, fast, templates.question(problem, question, form))
        if target is Target.sum and question.relevant:
            loss = loss + mean([nll(network, fast, templates.fact(i, problem.facts[i])) for i in question.relevant])
        losses.append(loss)
    return mean(losses)


def outer_gradient(learner: Any, problems: Sequence[Problem]) -> tuple[float, dict[str, Tensor]]:
    """Summed loss and its gradient, each loss sent backward as it comes."""
    named = dict(learner.model.network.named_parameters())
    if hasattr(learner, "writer"):
        named["rates"] = learner.writer.rates.numbers
    total = 0.0
    for loss in losses_of(learner, problems):
        assert loss.shape == ()
        loss.backward()
        total += loss.item()
    return total, {name: value.grad.clone() for name, value in named.items()}


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("target", list(Target))
def test_reckonings_loss_and_meta_gradient_equal_plain_autograd(
    tokenizer: Any, problems: Splits, target: Target, stack: bool
) -> None:
    batch = problems("train")[:2]
    inner = {"rule": RuleName.sgd, "weight_decay": 0.0, "stack": stack}
    learner = learner_of(tokenizer, MethodConfig(target=target), **inner)
    loss, gradient = outer_gradient(learner, batch)
    weights = list(learner.model.network.parameters())
    expected = torch.stack([by_hand(learner, problem, target, steps=2, lr=0.0625) for problem in batch]).sum()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for found, wanted in zip(gradient.values(), torch.autograd.grad(expected, weights), strict=False):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "inner",
    [
        {"rule": RuleName.adamw},
        {"rule": RuleName.adamw, "unroll": Unroll.first_order},
        {"rule": RuleName.adamw, "unroll": Unroll.truncate, "keep": 1},
        {"rule": RuleName.sgd, "lr": 0.1, "space": RateSpace.exp},
    ],
    ids=["adamw", "first order", "truncated", "sgd"],
)
@pytest.mark.parametrize("target", list(Target))
def test_stacked_equals_one_by_one(tokenizer: Any, problems: Splits, inner: dict[str, Any], target: Target) -> None:
    # of different lengths: three facts and three questions, two and one, three and two
    a, b, c = problems("train")[:3]
    b = Problem(b.id, b.theory, b.facts[:2], (), (type(b.questions[0])("q", "Bob is red", "true", (1,)),))
    batch = [a, b, Problem(c.id, c.theory, c.facts, (), c.questions[1:])]
    singly = learner_of(tokenizer, MethodConfig(target=target), stack=False, **inner)
    stacked = learner_of(tokenizer, MethodConfig(target=target), stack=True, **inner)
    one, many = outer_gradient(singly, batch), outer_gradient(stacked, batch)
    assert one[0] == pytest.approx(many[0], rel=1e-10)
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            many[1][name], gradient, rtol=1e-10, atol=1e-10 * gradient.abs().max().item(), msg=name
        )
    assert singly.measured == pytest.approx(stacked.measured, rel=1e-10)
    assert singly.respond(batch, 6) == stacked.respond(batch, 6)


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("weights", [["*"], ["*.mlp.*", "*.ln_f.*"]], ids=["all", "partial"])
@pytest.mark.parametrize(
    "inner",
    [
        {"unroll": Unroll.recompute},
        {"unroll": Unroll.recompute, "micro_batch": 1},
        {"unroll": Unroll.recompute, "keep": 1},
        {"unroll": Unroll.stored, "micro_batch": 2},
    ],
    ids=["recompute", "recompute, micro-batches", "recompute, one step kept", "stored, micro-batches"],
)
def test_every_exact_way_gives_the_gradient_of_stored_steps(
    tokenizer: Any, problems: Splits, inner: dict[str, Any], weights: list[str], stack: bool
) -> None:
    """Weights that are not fast learn as well."""
    batch = problems("train")[:2]
    stored = outer_gradient(learner_of(tokenizer, MethodConfig(), weights=weights, stack=stack), batch)
    found = outer_gradient(learner_of(tokenizer, MethodConfig(), weights=weights, stack=stack, **inner), batch)
    assert found[0] == pytest.approx(stored[0], rel=1e-11)
    for name, gradient in stored[1].items():
        assert gradient.ne(0).any(), name
        torch.testing.assert_close(
            found[1][name], gradient, rtol=1e-9, atol=1e-9 * gradient.abs().max().item() + 1e-15, msg=name
        )


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("weights", [["*"], ["*.mlp.*"]], ids=["all", "partial"])
def test_what_auto_chooses_gives_the_gradient_of_stored_steps(
    tokenizer: Any, problems: Splits, weights: list[str], stack: bool
) -> None:
    batch = problems("train")[:2]
    how = {"weights": weights, "stack": stack}
    stored = outer_gradient(learner_of(tokenizer, MethodConfig(), **how), batch)
    for budget, expected in {10**12: Unroll.stored, 1: Unroll.recompute}.items():
        gigabytes = budget / 1e9
        learner = learner_of(tokenizer, MethodConfig(), unroll=Unroll.auto, memory_gb=gigabytes, **how)
        learner.plan(batch, len(batch))
        assert (learner.writer.unroll, learner.writer.keep) == (expected, 0)
        found = outer_gradient(learner, batch)
        assert found[0] == pytest.approx(stored[0], rel=1e-11)
        for name, gradient in stored[1].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-9 * scale + 1e-15, msg=name)


def test_the_measured_inner_loss_is_the_mean_over_the_batch(tokenizer: Any, problems: Splits) -> None:
    learner = learner_of(tokenizer, MethodConfig())
    firsts = []
    for problem in problems("train")[:3]:
        list(losses_of(learner, [problem]))
        firsts.append(learner.measured["inner_loss_first"])
        assert learner.measured["inner_loss_last"] < learner.measured["inner_loss_first"]
    list(losses_of(learner, problems("train")[:3]))
    assert learner.measured["inner_loss_first"] == pytest.approx(sum(firsts) / 3)


@pytest.mark.parametrize("target", [Target.single, Target.multi])
def test_in_context_losses_are_summed_over_problems(tokenizer: Any, problems: Splits, target: Target) -> None:
    learner = learner_of(tokenizer, MethodConfig(learner=Learner.in_context, target=target))
    batch = problems("train")[:3]
    network = learner.model.network
    weights = dict(network.named_parameters())
    expected = torch.stack([mean([nll(network, weights, row) for row in learner.rows(p)]) for p in batch]).sum()
    (loss,) = losses_of(learner, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_relevant_facts_that_nobody_knows_add_nothing_to_the_literal_sum(tokenizer: Any, problems: Splits) -> None:
    known = problems("train")[0]
    blank = tuple(type(q)(q.id, q.text, q.answer) for q in known.questions)
    unknown = Problem(known.id, known.theory, known.facts, (), blank)
    for stack in (False, True):
        learner = learner_of(tokenizer, MethodConfig(target=Target.sum), stack=stack)
        single = learner_of(tokenizer, MethodConfig(target=Target.single), stack=stack)
        sums = [sum(loss.item() for loss in losses_of(each, [unknown])) for each in (learner, single)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-12)
        both = sum(loss.item() for loss in losses_of(learner, [unknown, known]))
        alone = sum(loss.item() for loss in losses_of(learner, [known]))
        assert both == pytest.approx(alone + sums[0], rel=1e-12)


def shown(learner: Any, problem: Problem) -> str:
    return str(learner.templates.tokenizer.decode(learner.rows(problem)[0].prompt))


def test_no_facts_and_no_question_see_what_they_say(tokenizer: Any, problems: Splits) -> None:
    problem = problems("train")[0]
    lines = "\n".join(problem.facts)
    asked = f"Can we conclude {problem.questions[0].text}?"
    kinds = {
        f"<eos>{asked}": MethodConfig(learner=Learner.in_context, knowledge=Knowledge.none),
        f"<eos>{lines}\n": MethodConfig(learner=Learner.in_context, question=False),
        f"<eos>{lines}\n{asked}": MethodConfig(learner=Learner.in_context),
    }
    for expected, method in kinds.items():
        assert shown(learner_of(tokenizer, method), problem) == expected


def test_random_facts_are_as_many_from_the_own_split_and_always_the_same(tokenizer: Any, problems: Splits) -> None:
    splits = {split: problems(split) for split in ("train", "dev", "test")}
    given = GivenKnowledge(Knowledge.random, splits, seed=0)
    again = GivenKnowledge(Knowledge.random, splits, seed=0)
    other = GivenKnowledge(Knowledge.random, splits, seed=1)
    for group in splits.values():
        pool = {fact for problem in group for fact in problem.facts}
        for problem in group:
            facts = given.of(problem)
            assert len(facts) == len(problem.facts) and set(facts) <= pool
            assert facts == again.of(problem)
    train = splits["train"]
    assert [given.of(problem) for problem in train] != [other.of(problem) for problem in train]
    drawn = Counter(fact for problem in train for fact in given.of(problem))
    assert len(drawn) > 5 and max(drawn.values()) > 1, "drawn with replacement from all sentences"
    learner = learner_of(tokenizer, MethodConfig(knowledge=Knowledge.random), splits)
    rows = learner.rows(train[0])[: len(train[0].facts)]
    spoken = [tokenizer.decode(row.ids[row.scored_from :]) for row in rows]
    assert spoken == list(given.of(train[0])), "random facts have the index prefix too"
    assert all(loss.isfinite() for loss in losses_of(learner, train[:2]))


@pytest.mark.parametrize("kind", [Learner.reckoning, Learner.in_context])
@pytest.mark.parametrize("evaluation_dropout", [False, True])
def test_evaluation_changes_no_weight_and_has_dropout_off(
    tokenizer: Any, problems: Splits, kind: Learner, evaluation_dropout: bool
) -> None:
    method = MethodConfig(learner=kind)
    learner = learner_of(tokenizer, method, dropout=0.5, stack=True)
    network = learner.model.network.train()
    config = TrainConfig(
        data=DataConfig(labels=WORDS),
        method=method,
        model=ModelConfig(evaluation_dropout=evaluation_dropout),
        evaluation=EvaluationConfig(max_new_tokens=8),
    )
    rates = getattr(learner, "rates", None) or torch.nn.Module()
    parts = Parts(learner.model, rates, learner.templates, learner, label_tokens=2)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seeds = torch.get_rng_state()
    first = [item.more["response"] for item in respond(parts, problems("dev"), config)]
    second = [item.more["response"] for item in respond(parts, problems("dev"), config)]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and all(value.grad is None for value in network.parameters())
    assert (first == second) is not evaluation_dropout
    assert torch.equal(seeds, torch.get_rng_state()) is not evaluation_dropout


def test_dropout_acts_in_training(tokenizer: Any, problems: Splits) -> None:
    for stack in (False, True):
        learner = learner_of(tokenizer, MethodConfig(), dropout=0.5, stack=stack)
        learner.model.network.train()
        losses = [sum(loss.item() for loss in losses_of(learner, problems("train")[:2])) for _ in range(2)]
        assert losses[0] != losses[1]


def test_more_inner_steps_at_test_time_are_one_key_away(tokenizer: Any, problems: Splits) -> None:
    batch = problems("dev")
    answers = []
    for steps in (0, 2, 6):
        learner = learner_of(tokenizer, MethodConfig(), lr=0.3)
        model, templates, method, knowledge = learner.model, learner.templates, learner.method, learner.knowledge
        learner = Reckoning(model, learner.writer.rates, templates, learner.writer.inner, method, knowledge, steps)
        answers.append(learner.respond(batch, 8))
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"knowledge": Knowledge.none}, "method.knowledge=none.*use method.learner=in_context"),
        ({"question": False}, "the outer loop a question"),
        ({"learner": Learner.in_context, "target": Target.sum}, "method.target=sum.*use single or multi"),
        ({"learner": Learner.in_context, "knowledge": Knowledge.none, "question": False}, "nothing is left to read"),
    ],
)
def test_impossible_methods_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MethodConfig(**settings)
