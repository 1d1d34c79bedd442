"""Generated chunks as items."""

from dataclasses import replace

import numpy as np
import pytest

from slowfast_vgen.data import world_of
from slowfast_vgen.metrics.pixels import ssim
from slowfast_vgen.scoring import Scores, imagined_items, items_of, looks_of, summarise
from slowfast_vgen.scoring import scores_of as scored
from slowfast_vgen.settings import Control
from slowfast_vgen.worlds.config import DataConfig
from slowfast_vgen.worlds.episode import Episodes, World

WORLD = world_of(DataConfig())
EPISODES = WORLD.episodes(0, "test", "out_and_back", 2, 0, 40)


def scores_of(world: World, episodes: Episodes, chunk: int, frames: np.ndarray) -> Scores:
    """With an autoencoder that loses nothing."""
    return scored(world, episodes, chunk, frames, episodes.frames[:, chunk] / 255.0)


def true(chunk: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    return EPISODES.frames[rows, chunk] / 255.0


def test_the_truth_is_right_everywhere_and_a_copy_of_the_last_frame_is_not():
    found = scores_of(WORLD, EPISODES, 4, true(4))
    assert found["place"].all() and not found["other"].any() and (found["psnr"] == 100).all()
    assert (found["copy"] < 30).any()


def test_a_picture_is_right_another_one_of_the_episode_or_foreign():
    pictures = WORLD.pictures / 255.0
    shown = [set(row[:4]) for row in EPISODES.looks.tolist()]
    wanted = EPISODES.looks[:, 4]
    for kind in ("other", "foreign"):
        rows, given = [], []
        for row, seen in enumerate(shown):
            pool = (seen if kind == "other" else set(range(8)) - seen) - {int(wanted[row])}
            if pool:
                rows.append(row)
                given.append(pictures[min(pool)])
        some = EPISODES.at(rows)
        frames = np.stack(given)[:, None].repeat(WORLD.chunk, 1)
        found = scores_of(WORLD, some, 4, frames)
        assert found[kind].all() and found["place"].sum() == 0


def test_shares_of_every_item_add_up_to_one():
    noise = np.random.default_rng(0).random(true(4).shape)
    found = scores_of(WORLD, EPISODES, 4, noise)
    assert ((found["place"] + found["other"] + found["foreign"]) == 1).all()


def test_a_world_without_a_catalogue_has_pixels_alone():
    without = replace(EPISODES, looks=np.full_like(EPISODES.looks, -1))
    assert set(scores_of(WORLD, without, 4, true(4))) == {"psnr", "ssim", "copy", "ceiling"}


def test_where_there_is_no_catalogue_the_better_memory_has_the_better_psnr():
    without = replace(EPISODES, looks=np.full_like(EPISODES.looks, -1))
    own, other = (scores_of(WORLD, without, 4, true(chunk)) for chunk in (4, 1))
    found = summarise(items_of(without, 4, {Control.own: own, Control.swapped: other}, 2), 0.95)
    gained = found["psnr"].value - found["psnr_swapped"].value
    assert found["gain_swapped@gap_2"].value == pytest.approx(gained) and gained > 20


def test_ssim_is_a_hundred_times_that_of_the_generated_chunk_with_every_memory():
    noise = np.random.default_rng(0).random(true(4).shape)
    alike = ssim(noise, EPISODES.frames[:, 4])
    assert alike.max() < 0.9 and alike.std() > 0.01
    scores = {
        Control.own: scores_of(WORLD, EPISODES, 4, true(4)),
        Control.swapped: scores_of(WORLD, EPISODES, 4, noise),
    }
    found = summarise(items_of(EPISODES, 4, scores, 2), 0.95)
    assert found["ssim@phase_return"].value == pytest.approx(100)
    swapped = found["ssim_swapped@phase_return"]
    assert swapped.value == pytest.approx(100 * alike.mean()) and swapped.low < swapped.value < swapped.high


def test_items_count_by_phase_and_gap_and_those_of_longer_episodes_apart():
    right = {chunk: scores_of(WORLD, EPISODES, chunk, true(chunk)) for chunk in (3, 4)}
    wrong = scores_of(WORLD, EPISODES, 4, true(1))
    items = items_of(EPISODES, 3, {Control.own: right[3], Control.swapped: right[3]}, 2)
    items += items_of(EPISODES, 4, {Control.own: right[4], Control.swapped: wrong}, 2)
    longer = WORLD.episodes(0, "test", "out_and_back", 3, 0, 40)
    far = {Control.own: scores_of(WORLD, longer, 6, longer.frames[:, 0] / 255.0)}
    items += items_of(longer, 6, far, 3, longer=True)
    found = summarise(items, 0.95)
    assert found["place"].value == 1 and found["place"].count == 80
    assert found["place@phase_replay"].count == found["place@gap_2"].count == 40
    assert found["gain_swapped@gap_2"].value == 1 - found["place_swapped@phase_return"].value > 0
    assert found["gain_swapped@gap_0"].value == 0
    assert found["place@of2_2"] == found["place@gap_2"]
    assert found["place@of3_4"].count == 40 and found["psnr@phase_return"].value == 100


def test_an_imagined_episode_agrees_with_itself_and_collapse_is_told_from_memory():
    true_looks = EPISODES.looks
    same = np.zeros_like(true_looks)
    found = summarise(imagined_items(EPISODES, {Control.own: true_looks, Control.none: same}), 0.95)
    value = {name: each.value for name, each in found.items()}
    assert value["consistent@imagined_2"] == value["consistent_none@imagined_2"] == 1
    assert value["floor_none@imagined_2"] == value["alike_none@imagined_2"] == value["distinct_none@imagined_2"] == 1
    assert value["floor@imagined_2"] < 0.4 and value["alike@imagined_2"] < 0.4 and value["distinct@imagined_2"] > 2
    assert set(found) == {name for name in found if "@imagined_" in name}
    assert looks_of(WORLD, EPISODES.frames[:, :, -1] / 255.0).tolist() == true_looks.tolist()
