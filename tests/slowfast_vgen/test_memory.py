"""TEMP-LORA: what the sheet's check list (7.1) asks of it, and memories as files."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet3DConditionModel
from peft import PeftModel
from torch import Tensor

from common.engine.weights import call, unstack
from common.errors import UserError
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import Seen, memories, seen
from slowfast_vgen.memory import Memory, TempLora
from slowfast_vgen.networks.unet3d import settings_of
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.pairs import Pair
from tests.slowfast_vgen.small import parts

ADAM = ("fast.steps=2", "fast.draws=2")
LEARNED = ("method=meta", "fast.first_move=null", "fast.lr=0.5", "fast.rank=2")


def lived(found: Parts, config: TrainConfig, count: int = 4, length: int = 2) -> Seen:
    episodes = found.world.episodes(0, "test", "out_and_back", length, 0, count)
    return seen(episodes, found.latents, config.method, found.device)


def said(found: Parts, there: Seen, memory: Memory | None) -> Tensor:
    """What the network predicts of each episode's first two chunks."""
    z = there.z[:, :2].flatten(1, 2)
    clean = (torch.arange(z.shape[1]) < 2).expand(len(z), -1)
    times = torch.full(clean.shape, 0.5)
    weights = {} if memory is None else memory.weights
    with torch.no_grad():
        return call(found.network, weights, z, times, there.actions[:, 1], clean)


def ready(*words: str) -> tuple[Parts, Seen]:
    found, config = parts(*words)
    there = lived(found, config)
    found.lora.attach()
    return found, there


def test_an_adapter_without_a_memory_changes_no_bit():
    found, config = parts(*ADAM)
    there = lived(found, config)
    before = said(found, there, None)
    found.lora.attach()
    assert said(found, there, None).equal(before)
    assert said(found, there, found.lora.start(there.ids)).equal(before)


def test_an_episode_leaves_slow_weights_as_they_are_and_moves_its_memory():
    found, there = ready(*ADAM)
    before = found.slow.digest()
    written = memories(found.lora, there)
    assert found.slow.digest() == before
    assert [memory.chunks for memory in written] == [0, 0, 1, 2, 2]  # before each chunk: start, new, new, back, back
    assert all((value != 0).any() for value in written[-1].weights.values())
    assert not said(found, there, written[-1]).equal(said(found, there, written[0]))


@pytest.mark.parametrize(
    "words", [ADAM, LEARNED, (*ADAM, "fast.source=reservoir", "fast.kept=1"), (*ADAM, "fast.source=full")]
)
def test_episodes_in_a_stack_learn_as_each_does_alone(words: tuple[str, ...]):
    found, there = ready(*words)
    whole = memories(found.lora, there)[-1]
    for row in (0, 3):
        one = replace(
            there, z=there.z[row : row + 1], actions=there.actions[row : row + 1], ids=there.ids[row : row + 1]
        )
        alone = memories(found.lora, one)[-1]
        for name, value in alone.weights.items():
            assert torch.allclose(value[0], whole.weights[name][row], rtol=1e-3, atol=1e-5), name


def test_a_step_is_that_of_torchs_adam_on_the_mean_of_its_draws():
    found, there = ready("fast.steps=3", "fast.draws=2", "fast.lr=0.01", "fast.eps=1e-8")
    lora = found.lora
    first = lora.write(lora.start(there.ids), there.past(1), there.z[:, 1], there.actions[:, 1])
    leaves = {name: value[:1].clone().requires_grad_() for name, value in lora.start(there.ids).weights.items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.01)
    pair = Pair(torch.cat([there.past(1), there.z[:, 1]], 1)[:1], 2, there.actions[:1, 1])
    for step in range(3):
        z, action, clean, t, noise = lora._batch(there.ids[:1], (), pair, 0, step)
        assert not clean.any() and not action.any()  # Eq. 3: all frames noised, no action
        loss = denoising_loss(found.network, found.diffusion, z, action, clean, t, noise, leaves)
        adam.zero_grad()
        loss.mean().backward(inputs=list(leaves.values()))
        adam.step()
    for name, value in leaves.items():
        assert torch.allclose(value[0], first.weights[name][0], rtol=1e-3, atol=1e-6), name


def test_the_original_form_keeps_input_and_action():
    found, there = ready(*ADAM, "fast.form=original")
    pair = Pair(torch.cat([there.past(1), there.z[:, 1]], 1), 2, there.actions[:, 1])
    _, action, clean, _, _ = found.lora._batch(there.ids, (), pair, 0, 0)
    assert action.equal(there.actions[:, 1].repeat_interleave(2)) and clean.tolist() == [[True, True, False, False]] * 8


def spied(lora: TempLora) -> list[tuple[Tensor, ...]]:
    """What its steps are given from now on."""
    given, batch = [], lora._batch
    lora._batch = lambda *asked: given.append(batch(*asked)) or given[-1]
    return given


def test_full_sequence_sees_earlier_pairs_and_the_local_rule_does_not():
    seen_first = {}
    for source in ("local", "full", "reservoir"):
        found, there = ready("fast.draws=8", f"fast.source={source}", "fast.kept=2")
        lora = found.lora
        one = lora.write(lora.start(there.ids), there.past(1), there.z[:, 1], there.actions[:, 1])
        clips = spied(lora)
        lora.write(one, there.past(2), there.z[:, 2], there.actions[:, 2])
        first, last = (torch.cat([there.past(chunk), there.z[:, chunk]], 1) for chunk in (1, 2))
        drawn = clips[0][0].unflatten(0, (4, 8))
        of_first = (drawn == first[:, None]).flatten(2).all(-1)
        assert (of_first | (drawn == last[:, None]).flatten(2).all(-1)).all()
        seen_first[source] = of_first.double().mean().item()
    assert seen_first["local"] == 0 and 0.2 < seen_first["full"] < 0.8
    assert 0.05 < seen_first["reservoir"] <= 0.5


def test_moments_go_on_from_chunk_to_chunk_or_begin_anew():
    counts = {}
    for state in ("keep", "fresh"):
        found, there = ready(*ADAM, f"fast.state={state}")
        counts[state] = memories(found.lora, there)[-1].state.count
    assert counts == {"keep": 4, "fresh": 2}


def test_an_episode_that_was_stopped_goes_on_to_the_same_bits():
    found, there = ready(*ADAM, "fast.source=reservoir")
    straight = memories(found.lora, there)[-1]
    lora = found.lora
    half = lora.write(lora.start(there.ids), there.past(1), there.z[:, 1], there.actions[:, 1])
    stored = Memory.of(half.state_dict())
    end = lora.write(stored, there.past(2), there.z[:, 2], there.actions[:, 2])
    assert all(value.equal(straight.weights[name]) for name, value in end.weights.items())


def test_a_saved_memory_is_a_peft_adapter_that_generates_the_same_bits(tmp_path):
    found, there = ready(*ADAM)
    memory = memories(found.lora, there)[-1]
    found.lora.save(memory, 2, tmp_path / "memory", "base")
    opened = found.lora.open(tmp_path / "memory", "base")
    assert opened.chunks == 2 and all(opened.weights[n].equal(v[2:3]) for n, v in memory.weights.items())
    assert json.loads((tmp_path / "memory" / "memory.json").read_text())["chunks"] == 2

    fresh, _ = parts(*ADAM)
    alone = PeftModel.from_pretrained(fresh.network, str(tmp_path / "memory"))
    z = there.z[2:3, :2].flatten(1, 2)
    clean = torch.tensor([[True, True, False, False]])
    times = torch.full(clean.shape, 0.5)
    one = replace(there, z=there.z[2:3], actions=there.actions[2:3], ids=there.ids[2:3])
    with torch.no_grad():
        plainly = alone(z, times, there.actions[2:3, 1], clean)
    with torch.no_grad():
        ours = call(found.network, unstack(memory.weights, 2), z, times, there.actions[2:3, 1], clean)
    assert plainly.equal(ours)
    assert torch.allclose(said(found, one, opened), ours, atol=1e-5)


def test_a_saved_memory_of_unet3d_is_an_adapter_of_plain_diffusers_that_predicts_the_same_bits(tmp_path):
    words = (*ADAM, "model=unet3d_tiny", "model.context=8")
    found, there = ready(*words)
    memory = memories(found.lora, there)[-1]
    found.lora.save(memory, 2, tmp_path / "memory", "base")
    opened = found.lora.open(tmp_path / "memory", "base")
    assert all(opened.weights[name].equal(value[2:3]) for name, value in memory.weights.items())

    fresh, config = parts(*words)
    unet = UNet3DConditionModel(**settings_of(config.model, fresh.latents.values))
    unet.load_state_dict(fresh.network.unet.state_dict())
    plain = PeftModel.from_pretrained(unet, str(tmp_path / "memory"))
    z, action = there.z[2:3, :2].flatten(1, 2), there.actions[2:3, 1]
    clean, times = torch.tensor([[True, True, False, False]]), torch.full((1, 4), 0.5)
    mask = clean.float()[:, None, :, None, None].expand(-1, 1, -1, *z.shape[3:])
    found.network.requires_grad_(False)  # as peft leaves them
    with torch.no_grad():
        sample, text = torch.cat([z.transpose(1, 2), mask], 1), fresh.network.action(action)[:, None]
        theirs = plain(sample, 1000 * 0.5 - 1, text).sample.transpose(1, 2)
        ours = call(found.network, unstack(opened.weights, 0), z, times, action, clean)
        stacked = call(found.network, opened.weights, z, times, action, clean)
        without = found.network(z, times, action, clean)
    assert theirs.equal(ours) and torch.allclose(stacked, ours, atol=1e-5)
    assert not torch.allclose(without, ours, atol=1e-3)


def test_a_memory_of_other_slow_weights_or_of_another_adapter_is_refused(tmp_path):
    found, there = ready(*ADAM)
    found.lora.save(memories(found.lora, there)[-1], 0, tmp_path / "memory", "here")
    with pytest.raises(UserError, match="an empty memory"):
        found.lora.save(found.lora.start(there.ids), 0, tmp_path / "empty", "here")
    other, _ = parts(*ADAM, seed=1)
    other.lora.attach()
    with pytest.raises(UserError, match="written into the base here"):
        other.lora.open(tmp_path / "memory", "there")
    wider, _ = parts(*ADAM, "fast.rank=3")
    wider.lora.attach()
    with pytest.raises(UserError, match="r=2, this model's has 3"):
        wider.lora.open(tmp_path / "memory", "there")


def test_layers_that_match_nothing_or_everything_are_refused():
    with pytest.raises(UserError, match=r"fast.layers: the pattern 'up\*' matches no linear or convolution layer"):
        parts("fast.layers=['up*']")
    with pytest.raises(UserError, match=r"'\*' is the whole network; name the layers"):
        parts("fast.layers=['*']")


def test_swapped_memories_are_those_of_the_episode_before():
    found, there = ready(*ADAM)
    memory = memories(found.lora, there)[-1]
    swapped = memory.rolled()
    assert all(value[1].equal(memory.weights[name][0]) for name, value in swapped.weights.items())
