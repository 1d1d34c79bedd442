"""One memory whichever way it is written: groups of segments and stacks against one padded batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from common.engine.settings import Unroll
from common.language.batch import micro_batches
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
