"""Visits under every control, alone and in a batch."""

from dataclasses import replace

import numpy as np
import pytest

from slowfast_vgen.episodes import memories, seen
from slowfast_vgen.evaluate import batches, generated, lived
from slowfast_vgen.generation import _controlled, imagined_looks, visits
from slowfast_vgen.imagine import imagined
from slowfast_vgen.settings import Control
from tests.slowfast_vgen.small import parts

EVERY = [each for each in Control if each is not Control.own]
WORDS = ("fast.steps=1", "fast.draws=2", "fast.lr=0.05")


def test_a_memory_that_was_dropped_or_switched_off_is_no_memory() -> None:
    found, config = parts(*WORDS)
    found.lora.attach()
    episodes = found.world.episodes(0, "test", "out_and_back", 2, 0, 4)
    for _, frames, decoded in visits(found, config, episodes, EVERY):
        assert np.array_equal(frames[Control.none], frames[Control.reset])
        for control in (Control.own, Control.swapped, Control.frozen):
            assert not np.allclose(frames[control], frames[Control.none], atol=1e-4)
        assert frames[Control.own].shape == decoded.shape == (4, 2, 8, 16, 3)


def test_controls_are_the_memories_that_they_say() -> None:
    found, config = parts(*WORDS)
    found.lora.attach()
    episodes = found.world.episodes(0, "test", "out_and_back", 3, 0, 4)
    there = seen(episodes, found.latents, config.method, found.device)
    written = memories(found.lora, there)
    assert [memory.chunks for memory in written] == [0, 0, 1, 2, 3, 3, 3]
    thetas = {control: _controlled(found, config, there, written, control) for control in Control}
    assert thetas[Control.none] is None and thetas[Control.own] is written
    assert [memory.chunks for memory in thetas[Control.frozen] or []] == [1] * 7
    assert [memory.chunks for memory in thetas[Control.reset] or []] == [0] * 7
    name = next(iter(written[-1].weights))
    swapped = (thetas[Control.swapped] or [])[-1].weights[name]
    assert swapped[1].equal(written[-1].weights[name][0])


def test_own_samples_are_remembered_from_the_first_chunk_on_and_read_after_the_truth() -> None:
    found, config = parts(*WORDS)
    found.lora.attach()
    there = seen(found.world.episodes(0, "test", "out_and_back", 3, 0, 4), found.latents, config.method, found.device)
    written = memories(found.lora, there)
    own = _controlled(found, config, there, written, Control.samples) or []
    assert [memory.chunks for memory in own] == [memory.chunks for memory in written]
    again = memories(found.lora, imagined(found, config, there))
    for name, value in own[-1].weights.items():
        assert value.equal(again[-1].weights[name]) and not value.allclose(written[-1].weights[name], atol=1e-4)


def test_writing_on_the_way_back_goes_on_from_the_way_out() -> None:
    found, config = parts(*WORDS, "fast.on_return=true")
    found.lora.attach()
    there = seen(found.world.episodes(0, "test", "out_and_back", 2, 0, 4), found.latents, config.method, found.device)
    written = memories(found.lora, there)
    assert [memory.chunks for memory in written] == [0, 0, 1, 2, 3]
    dropped = _controlled(found, config, there, written, Control.reset)
    assert [memory.chunks for memory in dropped or []] == [0, 0, 0, 0, 1]


def test_items_do_not_depend_on_how_many_are_generated_at_once() -> None:
    found, config = parts(*WORDS)
    found.lora.attach()
    small = replace(config, evaluation=replace(config.evaluation, batch=2))
    large = replace(config, evaluation=replace(config.evaluation, batch=64))
    one, other = (generated(found, each, "test", 7) for each in (small, large))
    assert len(one) == len(other) == 14
    same = {item.id: item for item in other}
    for few in one:
        many = same[few.id]
        assert few.scores.keys() == many.scores.keys()
        for name, (part, _) in few.scores.items():
            assert part == pytest.approx(many.scores[name][0], abs=1e-3), f"{name} of {few.id}"


def test_batches_are_never_of_one_episode_that_would_have_nobody_to_swap_with() -> None:
    found, config = parts()
    asked = replace(config, evaluation=replace(config.evaluation, batch=4))
    sizes = [len(episodes) for episodes in batches(found, asked, "test", 2, 9)]
    assert sizes == [3, 3, 3]


def test_an_imagined_episode_has_a_picture_for_every_chunk_with_and_without_fast_learning() -> None:
    found, config = parts(*WORDS)
    episodes = found.world.episodes(0, "test", "out_and_back", 2, 0, 3)
    assert set(imagined_looks(found, config, episodes)) == {Control.own}
    found.lora.attach()
    looks = imagined_looks(found, config, episodes)
    assert set(looks) == {Control.own, Control.none}
    assert all(each.shape == (3, 5) and (each[:, 0] == episodes.looks[:, 0]).all() for each in looks.values())


def test_imagined_episodes_may_be_longer_so_that_they_come_back_to_what_they_made_up() -> None:
    found, config = parts(*WORDS)
    longer = replace(config, evaluation=replace(config.evaluation, imagined_length=3))
    assert {item.slices["imagined"] for item in lived(found, config, 4)} == {2}
    assert [item.slices["imagined"] for item in lived(found, longer, 4)] == [2, 4] * 4
