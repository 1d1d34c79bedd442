"""How well facts are known before and after encoding: against greedy decoding, and by a model that must know them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.engine.weights import select, stack
from common.language.decode import CachedReader, greedy
from common.language.objective import known
from common.tables.intervals import mean_interval
from reckoning.config import Knowledge, Learner, MethodConfig
from reckoning.methods import Reckoning
from reckoning.problems import Problem
from reckoning.scoring import summarise_encoding
from tests.learners import losses_of
from tests.reckoning.test_methods import learner_of, nll

Splits = Callable[[str], list[Problem]]
CPU = torch.device("cpu")


def test_known_is_the_loss_and_what_greedy_decoding_writes(tokenizer: Any, problems: Splits) -> None:
    learner = learner_of(tokenizer, MethodConfig(), lr=0.01, steps=60)
    problem = problems("train")[0]
    fast = learner.memorise([problem], training=False)
    network, rows = learner.model.network, learner._memorised(problem)
    outcomes = set()
    for weights in (select(network), fast):
        losses, exact = known(network, weights, learner.writer.rows([rows]))
        for row, loss, right in zip(rows, losses.tolist(), exact.tolist(), strict=True):
            assert loss == pytest.approx(nll(network, weights, row).item(), rel=1e-10)
            wanted = list(row.ids[row.scored_from :])
            ((written,),) = greedy(
                CachedReader(network, weights, 64, stacked=False),
                [[row.prompt]],
                eos=-1,
                new_tokens=len(wanted),
                window=64,
                device=CPU,
            )
            assert (written == wanted) is right
            outcomes.add(right)
    assert outcomes == {True, False}, "both cases were seen"


@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
def test_encoding_makes_facts_known(tokenizer: Any, problems: Splits, stacked: bool) -> None:
    learner = learner_of(tokenizer, MethodConfig(), lr=0.01, steps=60, stack=stacked)
    a, b = problems("dev")[:2]
    b = Problem(b.id, b.theory, b.facts[:2], (), tuple(type(q)(q.id, q.text, q.answer) for q in b.questions))
    before = {name: w.clone() for name, w in learner.writer.slow.items()}
    answered = learner.respond_and_recall([a, b], 4)
    assert [each.texts for each in answered] == learner.respond([a, b], 4)
    encoded = [each.encoded for each in answered]
    assert [len(own) for own in encoded] == [3, 2]
    for own in encoded:
        assert not any(fact.exact_before for fact in own) and all(fact.exact_after for fact in own)
        assert all(fact.loss_after < 0.5 < 3 < fact.loss_before for fact in own)
    assert all(torch.equal(w, before[name]) and w.grad is None for name, w in learner.writer.slow.items())
    metrics = summarise_encoding([a, b], encoded, 0.95)
    assert (metrics["fact_exact_before"].value, metrics["fact_exact_after"].value) == (0, 1)
    assert metrics["fact_loss_after"].count == 5
    assert metrics["fact_loss_after"].low < metrics["fact_loss_after"].value < metrics["fact_loss_before"].low


def test_a_stack_gives_what_problems_give_alone(tokenizer: Any, problems: Splits) -> None:
    rows = [learner_of(tokenizer, MethodConfig())._memorised(problem) for problem in problems("dev")[:2]]
    one, many = (learner_of(tokenizer, MethodConfig(), stack=value) for value in (False, True))
    together = known(many.model.network, stack(many.writer.slow, 2), many.writer.rows(rows))
    for place, own in enumerate(rows):
        alone = known(one.model.network, one.writer.slow, one.writer.rows([own]))
        torch.testing.assert_close(together[0][place], alone[0])
        assert torch.equal(together[1][place], alone[1])


def test_training_without_the_inner_loop_adapts_at_test_time_only(tokenizer: Any, problems: Splits) -> None:
    method = MethodConfig(meta=False)
    batch = problems("train")[:2]
    plain: Reckoning = learner_of(tokenizer, method, steps=3, lr=0.05)
    losses = [loss.item() for loss in losses_of(plain, batch)]
    no_steps = learner_of(tokenizer, MethodConfig(learner=Learner.in_context, knowledge=Knowledge.none))
    rows = [[plain.templates.question(p, q, method.target) for q in p.questions] for p in batch]
    weights = select(no_steps.model.network)
    expected = [sum(nll(no_steps.model.network, weights, row).item() for row in own) / len(own) for own in rows]
    assert losses == pytest.approx(expected, rel=1e-10), "the mean over questions, from the initial weights"
    for loss in losses_of(plain, batch):
        loss.backward()
    assert plain.writer.rates.numbers.grad is None and plain.measured == {}
    meta = learner_of(tokenizer, MethodConfig(), steps=3, lr=0.05)
    assert plain.respond(batch, 4) == meta.respond(batch, 4), "the same inner loop at test time"


def test_a_run_reports_them_once_a_knowledge_set_and_can_leave_them_out(
    trained: Path, mini: Any, tmp_path: Path
) -> None:
    test = json.loads((trained / "results.json").read_text())["test"]
    for name in ("fact_exact_before", "fact_exact_after", "fact_loss_before", "fact_loss_after"):
        assert test[name]["count"] == 4 * 3, name
    few = ["outer.steps=1", "data.limit={train:4,dev:1,test:1}", "evaluation.max_new_tokens=2", "loop.evaluate_every=0"]
    assert mini.train(tmp_path, "evaluation.fact_recall=false", *few) == 0
    (results,) = tmp_path.rglob("results.json")
    assert not any(name.startswith("fact_") for name in json.loads(results.read_text())["test"])


def test_the_interval_of_a_mean_is_students_over_groups() -> None:
    from scipy import stats

    values = [1.0, 3.0, 2.0, 7.0, 4.5]
    found = mean_interval(values, list(range(5)))
    low, high = stats.t.interval(0.95, 4, loc=3.5, scale=stats.sem(values))
    assert (found.value, found.count, found.low, found.high) == pytest.approx((3.5, 5, low, high))
    twice = mean_interval([x for x in values for _ in range(2)], [i for i in range(5) for _ in range(2)])
    assert (twice.low, twice.high) == pytest.approx((low, high)), "copies of an item tell nothing new"
    alone = mean_interval(values, ["a"] * 5)
    assert (alone.low, alone.high) == (1.0, 7.0)
    with pytest.raises(ValueError, match="no items"):
        mean_interval([], [])
