"""Noise by what it is for."""

import numpy as np
import torch

from slowfast_vgen.noise import Noise, chosen, even, normal, strata

IDS = [f"test/out_and_back/{number}" for number in range(400)]


def test_noise_of_an_episode_is_the_same_alone_in_a_stack_and_in_another_order():
    noise = Noise(3, "fast")
    whole = normal(noise.keys(IDS, 2, 1, 4), (2, 3))
    for row in (0, 17, 399):
        assert normal(noise.keys([IDS[row]], 2, 1, 4), (2, 3)).equal(whole[row : row + 1])
    assert normal(noise.keys(IDS[::-1], 2, 1, 4), (2, 3)).equal(whole.flip(0))
    assert normal(noise.keys(IDS, 2, 1, 2), (2, 3)).equal(whole[:, :2])  # fewer draws are the first of more


def test_noise_differs_by_seed_purpose_episode_chunk_step_and_draw():
    keys = {
        "plain": Noise(0, "a").keys(IDS[:1], 0, 0, 2),
        "seed": Noise(1, "a").keys(IDS[:1], 0, 0, 2),
        "purpose": Noise(0, "b").keys(IDS[:1], 0, 0, 2),
        "episode": Noise(0, "a").keys(IDS[1:2], 0, 0, 2),
        "chunk": Noise(0, "a").keys(IDS[:1], 1, 0, 2),
        "step": Noise(0, "a").keys(IDS[:1], 0, 1, 2),
    }
    numbers = torch.cat([normal(each, (5,)).flatten() for each in keys.values()])
    assert len(numbers.unique()) == len(numbers) == 6 * 2 * 5


def test_noise_is_normal_and_independent_across_its_axes():
    drawn = normal(Noise(0, "x").keys(IDS, 0, 0, 5), (10,)).double()  # 20,000 numbers
    flat = drawn.flatten()
    assert abs(flat.mean()) < 4 / len(flat) ** 0.5
    assert abs(flat.square().mean() - 1) < 4 * (2 / len(flat)) ** 0.5
    assert abs(flat.pow(4).mean() - 3) < 4 * (96 / len(flat)) ** 0.5
    rows = drawn.reshape(-1, 10)
    correlation = (rows.mT @ rows / len(rows)) - torch.eye(10).double()
    assert correlation.abs().max() < 5 / len(rows) ** 0.5 * 2**0.5


def test_even_numbers_fill_the_interval_and_strata_have_one_in_each_part():
    keys = Noise(0, "t").keys(IDS, 0, 0, 8)
    drawn = even(keys)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.double().mean() - 0.5) < 4 * (1 / 12 / drawn.numel()) ** 0.5
    assert (strata(keys) * 8).long().equal(torch.arange(8).expand(400, 8))
    counts = np.bincount(chosen(keys, 5).flatten().numpy(), minlength=5)
    assert len(counts) == 5 and abs(counts / keys.size - 0.2).max() < 0.04


def test_noise_leaves_the_global_generators_alone():
    before = torch.random.get_rng_state()
    normal(Noise(0).keys(IDS, 0), (4,))
    assert torch.random.get_rng_state().equal(before)
