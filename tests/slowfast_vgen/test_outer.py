"""What follows slow learning: the loop's triples, and the gradient through the fast steps."""

from dataclasses import replace

import pytest
import torch

from common.engine.settings import Unroll
from common.errors import UserError
from slowfast_vgen.episodes import memories
from slowfast_vgen.loop import FOLDER, Triples
from slowfast_vgen.outer import calibrate, outer_loss, targets
from slowfast_vgen.stages import Optimiser, begin_outer, outer_step, training_episodes
from tests.slowfast_vgen.small import parts


def begun(*words: str):
    found, config = parts(*words)
    optimiser = Optimiser(found, config)
    begin_outer(found, config, optimiser)
    return found, config, optimiser


def test_targets_are_the_draws_of_each_phase_that_are_asked_for():
    found, config = parts("outer.length=3", "outer.replay=1", "outer.returns=4", "outer.new=2")
    there = training_episodes(found, config, 1)
    assert there.phases == ("start", "new", "new", "new", "replay", "return", "return")
    seen = set()
    for step in range(1, 12):
        chunks = targets(there, config.outer, 0, step)
        assert [there.phases[chunk] for chunk in chunks] == ["replay"] + ["return"] * 4 + ["new"] * 2
        seen |= set(chunks)
    assert seen == {1, 2, 3, 4, 5, 6}


def test_episodes_that_never_come_back_are_tested_on_what_is_new_and_refused_as_targets():
    found, config = parts("outer.families=[new]")
    there = training_episodes(found, config, 1)
    assert there.visits == (1, 2)
    with pytest.raises(UserError, match=r"episodes of start, new chunks alone, and outer.replay=1"):
        targets(there, config.outer, 0, 1)


def test_every_chunk_that_counts_is_seen_at_all_times(monkeypatch):
    found, config = parts("outer.episodes=8", "outer.returns=2")
    there = training_episodes(found, config, 1)
    times = []
    own = found.network.forward
    monkeypatch.setattr(found.network, "forward", lambda x, t, *rest: times.append(t[:, -1]) or own(x, t, *rest))
    outer_loss(found.network, found.diffusion, there, None, targets(there, config.outer, 0, 1), 0)
    (drawn,) = times
    for column in drawn.view(8, 3).unbind(1):
        assert ((column.sort().values * 8).long() == torch.arange(8)).all()


def test_the_gradient_through_the_fast_steps_is_that_of_finite_differences():
    found, config = parts("method=meta", "fast.rank=2", "fast.first_move=null", "fast.lr=0.3", "outer.episodes=2")
    found.lora.attach()
    found.network.double(), found.lora.rates.double(), found.latents.double()
    there = training_episodes(found, config, 1)
    there = replace(there, z=there.z.double())
    chunks = targets(there, config.outer, 0, 1)

    def loss() -> torch.Tensor:
        written = memories(found.lora, there, Unroll.stored)
        return outer_loss(found.network, found.diffusion, there, written, chunks, 0)

    named = dict(found.network.named_parameters())
    some = [next(name for name in named if part in name) for part in ("lora_A", "base_layer.weight", "enter.weight")]
    learning = [named[name] for name in some] + [found.lora.rates.numbers]
    gradients = torch.autograd.grad(loss(), learning)
    for weight, gradient in zip(learning, gradients, strict=True):
        place = int(gradient.abs().argmax())
        with torch.no_grad():
            flat, size = weight.view(-1), 1e-5
            flat[place] += size
            above = loss()
            flat[place] -= 2 * size
            below = loss()
            flat[place] += size
        numeric = float(above - below) / (2 * size)
        assert gradient.flatten()[place].item() == pytest.approx(numeric, rel=1e-4)


def test_first_order_has_the_same_loss_and_another_gradient():
    grads = {}
    for unroll in ("stored", "recompute", "first_order"):
        words = ("method=meta", "fast.rank=2", "fast.first_move=null", "fast.lr=0.3", f"inner.unroll={unroll}")
        found, config, _ = begun(*words)
        there = training_episodes(found, config, 1)
        written = memories(found.lora, there, config.inner.unroll)
        loss = outer_loss(found.network, found.diffusion, there, written, targets(there, config.outer, 0, 1), 0)
        loss.backward()
        grads[unroll] = (loss.item(), found.network.enter.weight.grad.clone())
    assert grads["stored"][0] == pytest.approx(grads["first_order"][0], rel=1e-5)
    assert torch.allclose(grads["stored"][1], grads["recompute"][1], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(grads["stored"][1], grads["first_order"][1], rtol=1e-2)


def test_a_rate_begins_where_the_first_step_moves_its_tensor_as_asked():
    found, config = parts("method=meta", "fast.rank=2")
    found.lora.attach()
    there = training_episodes(found, config, 0)
    calibrate(found.lora, there, 0.02)
    start = found.lora.start(there.ids)
    after = found.lora.write(start, there.past(1), there.z[:, 1], there.actions[:, 1])
    for name, value in after.weights.items():
        assert (value - start.weights[name]).square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-3)


def test_the_loop_steps_slow_weights_alone_and_never_its_memories(tmp_path):
    found, config, optimiser = begun("method=loop", "fast.steps=1", "consolidate.batch=3")
    matrices = {name: value.clone() for name, value in found.lora.adapter.matrices().items()}
    before = found.slow.digest()
    shown = outer_step(found, config, optimiser, 1, tmp_path)
    assert found.slow.digest() != before
    assert all(
        value.equal(matrices[name]) and value.grad is None for name, value in found.lora.adapter.matrices().items()
    )
    assert shown["staleness"] > 0 and not (tmp_path / FOLDER).exists()
    assert optimiser.outer.schedule.last_epoch == 3 * 2  # of three chunks, four episodes in batches of three


@pytest.mark.parametrize("words", [("method=loop",), ("method=meta", "outer.adapter=false")])
def test_a_of_the_adapter_stays_where_outer_steps_leave_it_alone(words, tmp_path):
    rule = ("fast.rule=sgd", "fast.steps=1", "fast.weights=[B]", "fast.learned=false", "fast.first_move=null")
    found, config, optimiser = begun(*words, *rule, "fast.lr=0.5")
    before = {name: value.clone() for name, value in found.lora.adapter.matrices().items()}
    outer_step(found, config, optimiser, 1, tmp_path)
    assert all(value.equal(before[name]) for name, value in found.lora.adapter.matrices().items())
    again, *_ = begun("method=meta", *rule, "fast.lr=0.5")
    assert [weight.requires_grad for name, weight in again.lora.adapter.matrices().items() if "lora_A" in name][0]


def test_a_triple_has_the_memory_from_before_its_output_was_seen(tmp_path):
    found, config = parts("method=loop", "fast.steps=1")
    found.lora.attach()
    there = training_episodes(found, config, 1)
    written = memories(found.lora, there)
    for budget in (10**9, 0):
        with Triples(tmp_path, budget) as triples:
            for chunk in (1, 2, 3):
                triples.add(there, chunk, chunk, written[chunk].weights)
            assert (tmp_path / FOLDER).exists() == (budget == 0)
            found_ones = list(triples.batches(4, 0, 1))
        assert len(found_ones) == 3
        for part in found_ones:
            new = part.clip[0, 2:]
            row, chunk = next((r, c) for c in (1, 2, 3) for r in range(4) if new.equal(there.z[r, c]))
            name = next(iter(part.weights))
            assert part.weights[name][0].equal(written[chunk].weights[name][row])
            assert part.clip[0, :2].equal(there.past(chunk)[row]) and written[chunk].chunks == min(chunk - 1, 2)


@pytest.mark.parametrize(
    "words",
    [("method=finetune",), ("method=loop", "fast.steps=1", "consolidate=samples"), ("method=loop_first_order",)],
)
def test_each_way_to_go_on_takes_a_step(words, tmp_path):
    found, config, optimiser = begun(*words)
    before = found.slow.digest()
    shown = outer_step(found, config, optimiser, 1, tmp_path)
    assert found.slow.digest() != before and shown["outer_loss"] > 0
