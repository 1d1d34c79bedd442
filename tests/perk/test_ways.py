"""One memory whichever way it is written: groups of segments, packed rows and stacks against one padded batch."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from common.engine.inner import adapt
from common.engine.rules import make_rule
from common.engine.settings import Unroll
from common.engine.twice.packing import Packed, pack
from common.engine.weights import Weights, call
from common.language.batch import Row, micro_batches
from perk.build import Parts
from perk.config import MethodConfig
from perk.templates import predicted
from tests.perk.miniature import close, meta_gradient, parts_of, perk_of, problems, write_model, written


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Parts]:
    """Settings of the inner loop -> parts of one of the models."""
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param)
    return lambda **how: parts_of(folder, **how)


# ---- accumulation over groups of segments


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_groups_of_unequal_size_write_the_adapter_of_one_batch(make: Callable[..., Parts], size: int) -> None:
    """Five segments of 3 to 24 tokens: groups differ in segments and in tokens, and each token counts alike."""
    parts, problem = make(), problems()[0]
    learner = perk_of(parts)
    groups = micro_batches(learner._given([problem]), size)
    counts = [int(group.scored[:, 1:].sum()) for group in groups]
    assert len(set(counts)) > 1 and sum(counts) == sum(map(predicted, parts.templates.segments(problem)))
    whole = written(parts, problem)
    seen: list[int] = []
    loss = learner.writer.loss
    learner.writer.loss = lambda weights, rows: (seen.append(len(rows.ids)), loss(weights, rows))[1]
    close(written(parts, problem, size), whole)
    assert seen == 4 * [len(group.ids) for group in groups] and max(seen) == size
    start = dict(parts.model.network.named_parameters())
    assert all(not torch.equal(value, start[name]) for name, value in whole.items())


@pytest.mark.parametrize("stack", [False, True], ids=["one by one", "stacked"])
@pytest.mark.parametrize("how", [{"unroll": Unroll.tgu, "keep": 2}, {"unroll": Unroll.first_order}], ids=str)
def test_groups_of_unequal_size_give_the_meta_gradient_of_one_batch(
    make: Callable[..., Parts], how: dict[str, Any], stack: bool
) -> None:
    batch = problems()
    loss, whole = meta_gradient(make(stack=stack, **how), batch)
    for size in (2, 4):
        found_loss, found = meta_gradient(make(stack=stack, micro_batch=size, **how), batch)
        assert found_loss == pytest.approx(loss, rel=1e-12)
        close(found, whole, f"micro_batch={size}")


def test_the_inner_loss_is_a_mean_over_tokens_and_not_over_segments(make: Callable[..., Parts]) -> None:
    parts, problem = make(method=MethodConfig(token_weights=False), steps=1), problems()[0]
    learner, network = perk_of(parts), parts.model.network
    values = []
    for row in parts.templates.segments(problem):
        scores = network(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        values += [-scores[place - 1, row.ids[place]] for place in range(row.scored_from, len(row.ids))]
    (found,) = learner._adapt([problem], training=False).losses
    assert found.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-12)


# ---- packed rows


def packed_loss(parts: Parts, packed: Packed, scored: Tensor) -> Callable[[Weights, object], Tensor]:
    """The inner loss over one row without padding: mean of weighted losses over the scored tokens of all segments.

    `scored` bool [tokens]: what is predicted.
    """
    network, weigher = parts.model.network, parts.weigher
    assert weigher is not None

    def loss(weights: Weights, _: object) -> Tensor:
        output = call(network, weights, **packed.inputs(network), use_cache=False, output_hidden_states=True)
        scores, states = output.logits[0].log_softmax(-1), output.hidden_states[-1][0]
        places = scored.nonzero()[:, 0]
        losses = -scores[places - 1].gather(1, packed.ids[0, places, None])[:, 0]
        return (losses * weigher(states[places])).mean()

    return loss


def laid_out(rows: Sequence[Row]) -> tuple[Packed, Tensor]:
    packed = pack([row.ids for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    from_ = torch.tensor([max(1, row.scored_from) for row in rows])
    places = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths)[packed.row]
    return packed, places >= from_[packed.row]


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_segments_packed_into_one_row_are_written_as_padded_ones(make: Callable[..., Parts], micro_batch: int) -> None:
    """Losses, inner gradient, and the adapter after all steps; positions restart in each segment."""
    parts, problem = make(), problems()[0]
    learner = perk_of(parts)
    packed, scored = laid_out(parts.templates.segments(problem))
    in_row = packed_loss(parts, packed, scored)
    rows, start = learner._given([problem]), learner.writer.start(1)

    losses = learner.memorised.under(start, rows.ids)[rows.scored[:, 1:] > 0]
    assert len(losses) == int(scored.sum())
    padded = learner.writer.loss(start, rows)
    torch.testing.assert_close(losses.mean(), padded, rtol=1e-13, atol=0)
    torch.testing.assert_close(in_row(start, None), padded, rtol=1e-13, atol=0)
    gradients = [torch.autograd.grad(value, list(start.values())) for value in (in_row(start, None), padded)]
    close(*(dict(zip(start, gradient, strict=True)) for gradient in gradients))

    assert parts.rates is not None
    inner = learner.writer.inner
    fast = adapt(in_row, start, steps=inner.steps, rule=make_rule(inner), rates=parts.rates, unroll=Unroll.none)
    close(fast.weights, written(parts, problem, micro_batch))


def test_the_meta_gradient_through_packed_rows_is_that_of_padded_ones(make: Callable[..., Parts]) -> None:
    how = {"unroll": Unroll.tgu, "keep": 2}
    parts, problem = make(**how), problems()[0]
    learner = perk_of(parts)
    loss, expected = meta_gradient(parts, [problem])
    start, weigher, rates = learner.writer.start(1), parts.weigher, parts.rates
    assert weigher is not None and rates is not None
    in_row = packed_loss(parts, *laid_out(parts.templates.segments(problem)))
    fast = adapt(in_row, start, steps=4, rule=make_rule(learner.writer.inner), rates=rates, **how)  # type: ignore[arg-type]
    outer = learner.answer_loss(fast.weights, [problem])
    assert outer.item() == pytest.approx(loss, rel=1e-12)
    learning = {**start, **{f"weigher.{name}": p for name, p in weigher.named_parameters()}, "rates": rates.numbers}
    found = torch.autograd.grad(outer, list(learning.values()))
    close(dict(zip(learning, found, strict=True)), expected)


# ---- several contexts at once


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("keep", [0, 2])
def test_a_stack_of_contexts_gives_the_numbers_of_one_after_the_other(
    make: Callable[..., Parts], keep: int, micro_batch: int
) -> None:
    """Contexts of five, three and two segments, one of them asked twice."""
    batch, how = problems(), {"unroll": Unroll.tgu, "keep": keep}
    singly, stacked = make(**how), make(stack=True, micro_batch=micro_batch, **how)
    one, many = meta_gradient(singly, batch), meta_gradient(stacked, batch)
    assert one[0] == pytest.approx(many[0], rel=1e-12)
    close(many[1], one[1])
    assert stacked.learner.measured == pytest.approx(singly.learner.measured, rel=1e-12)
    assert stacked.learner.measured["inner_loss_last"] < stacked.learner.measured["inner_loss_first"]


def test_a_stack_of_contexts_gets_the_answers_of_one_after_the_other(make: Callable[..., Parts]) -> None:
    batch = problems()
    for lr in (0.02, 0.5):
        singly, stacked = make(lr=lr), make(lr=lr, stack=True)
        assert perk_of(stacked).writer.stacked
        answers = singly.learner.respond(batch, 8)
        assert [len(texts) for texts in answers] == [2, 1, 1]
        assert stacked.learner.respond(batch, 8) == answers
        together, alone = perk_of(stacked)._adapt(batch, training=False), [written(singly, each) for each in batch]
        for place, own in enumerate(alone):
            close({name: value[place] for name, value in together.weights.items()}, own)
    assert len({text for texts in answers for text in texts}) > 1


def test_stacks_take_one_pass_over_all_contexts(make: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without vmap: LoRA matrices take stacks as they are."""
    parts, batch = make(stack=True), problems()
    monkeypatch.setattr(torch.func, "vmap", None)
    meta_gradient(parts, batch)


@pytest.mark.parametrize("make", ["gpt2"], indirect=True)
@pytest.mark.parametrize(("gigabytes", "stack"), [(1000.0, False), (1e-9, True)])
def test_what_auto_chooses_gives_the_exact_meta_gradient(
    make: Callable[..., Parts], gigabytes: float, stack: bool
) -> None:
    batch = problems()[1:]
    parts = make(unroll=Unroll.auto, memory_gb=gigabytes, stack=stack)
    perk_of(parts).plan(batch, len(batch))
    assert perk_of(parts).writer.unroll is (Unroll.recompute if stack else Unroll.stored)
    close(meta_gradient(parts, batch)[1], meta_gradient(make(unroll=Unroll.stored), batch)[1])
