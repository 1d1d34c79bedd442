"""The world's own encoders: they learn, are kept by what they depend on, and stay what they are."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.metrics import tasks
from slowfast_vgen.metrics.config import FeaturesConfig
from slowfast_vgen.metrics.encoders import CORRUPTIONS, MotionEncoder, PlaceEncoder, halvings
from slowfast_vgen.metrics.features import Encoders, as_tensor, encoders
from slowfast_vgen.worlds.config import DataConfig

WORLD = world_of(DataConfig())


def test_the_encoders_learn_their_tasks(trained: Encoders) -> None:
    assert trained.right["place"]["frame"] > 0.9  # of 256 frames
    assert trained.right["motion"]["look"] > 0.5  # of eight
    assert trained.right["inverse"]["action"] > 0.6  # of two
    assert set(trained.right["motion"]) == {"action", "order", "corruption", "look"}


def test_views_of_one_frame_are_closer_than_other_frames(trained: Encoders) -> None:
    frames = WORLD.clips(0, "test", 0, 64).frames[:, 1, -1]
    seen = tasks.view(as_tensor(frames), torch.Generator().manual_seed(0)).numpy()
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in map(trained.places, (frames, seen)))
    looks = WORLD.look(frames)
    alike = first @ second.T
    assert np.diag(alike).mean() > alike[looks[:, None] != looks].mean() + 0.5


def test_lpips_of_equal_frames_is_0_and_grows_with_noise(trained: Encoders) -> None:
    frames = WORLD.clips(0, "test", 0, 300).frames[:, 1, -1] / 255
    noise = np.random.default_rng(0).standard_normal(frames.shape)
    found = [trained.lpips(frames + level * noise, frames) for level in (0, 0.05, 0.2)]
    assert found[0].shape == (300,) and (found[0] == 0).all()
    assert (found[0] < found[1]).all() and found[1].mean() < found[2].mean()


def test_features_do_not_depend_on_what_else_goes_through(trained: Encoders) -> None:
    clips = WORLD.clips(0, "test", 0, 300).frames.reshape(300, -1, 8, 16, 3)
    np.testing.assert_allclose(trained.motions(clips)[290:], trained.motions(clips[290:]), atol=1e-5)
    np.testing.assert_allclose(trained.motions(clips), trained.motions(clips / 255), atol=1e-5)


def test_the_action_of_a_video_is_read_off_its_pairs_of_frames(trained: Encoders) -> None:
    clips = WORLD.clips(0, "test", 0, 200)
    video = clips.frames.reshape(200, -1, 8, 16, 3)
    asked = clips.actions[:, 1]
    assert (trained.actions(video[:, 1:], given=1) == asked).mean() > 0.6
    with torch.no_grad():
        pair = trained.inverse(as_tensor(video[:, 2]), as_tensor(video[:, 3])).argmax(1)
    np.testing.assert_array_equal(trained.actions(video[:, 2:], given=0), pair)


def test_what_was_trained_once_is_read_again(tmp_path: Path) -> None:
    config = FeaturesConfig(steps=4, batch=8, cache=str(tmp_path))
    first = encoders(WORLD, "rooms", 0, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = encoders(WORLD, "rooms", 0, config)
    assert again.digests == first.digests and again.right == first.right
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before and len(before) == 6
    assert all(len(digest) == 12 for digest in again.digests.values())
    assert not any(weight.requires_grad for weight in again.place.parameters())


def test_the_start_of_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one = encoders(WORLD, "rooms", 0, FeaturesConfig(steps=4, batch=8))
    assert torch.equal(torch.rand(3), wanted)
    assert encoders(WORLD, "rooms", 0, FeaturesConfig(steps=4, batch=8)).digests == one.digests
    assert encoders(WORLD, "rooms", 1, FeaturesConfig(steps=4, batch=8)).digests != one.digests


def test_a_damaged_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = FeaturesConfig(steps=4, batch=8, cache=str(tmp_path))
    first = encoders(WORLD, "rooms", 0, config)
    for path in tmp_path.glob("place-*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    for path in tmp_path.glob("motion-*.json"):
        path.write_text(json.dumps({"sha256": 5}))
    with caplog.at_level(logging.WARNING):
        assert encoders(WORLD, "rooms", 0, config).digests == first.digests
    assert [record.message.count("the encoder is trained again") for record in caplog.records].count(1) == 2


def test_a_cache_that_cannot_be_written_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"features\.cache=.*file.*: .*; free space there, or set another folder"):
        encoders(WORLD, "rooms", 0, FeaturesConfig(steps=1, batch=8, cache=str(tmp_path / "file" / "below")))


def test_sides_are_halved_to_four_pixels() -> None:
    assert [halvings(*size) for size in ((4, 4), (8, 16), (16, 32), (32, 32), (33, 64))] == [1, 1, 2, 3, 4]
    for height, width in ((8, 16), (33, 21)):
        assert PlaceEncoder(height, width)(torch.zeros(2, height, width, 3)).shape == (2, 32)
        told = MotionEncoder(height, width, 3, 8).told(torch.zeros(2, 5, height, width, 3))
        assert [logits.shape[1] for logits in told] == [3, 2, len(CORRUPTIONS), 8]


def test_corrupted_clips_are_what_they_are_called() -> None:
    clips = tasks.batch_of(WORLD, 0, "train", 0, 200).clips
    made, kinds = tasks.corrupted(clips, torch.Generator().manual_seed(0))
    names = [CORRUPTIONS[kind] for kind in kinds]
    assert set(names) == set(CORRUPTIONS)
    for clip, before, after, name in zip(made, clips, clips.roll(1, 0), names, strict=True):
        first, last = (clip[:2] == before[:2]).all(), (clip[2:] == before[2:]).all()
        assert bool(first) == (name in ("none", "splice"))
        assert bool(last) == (name == "none") or torch.equal(before[2:], after[2:])
    assert torch.equal(made[names.index("blur")], tasks.blurred(clips)[names.index("blur")])


def test_shuffled_clips_have_their_frames_in_another_order() -> None:
    clips = torch.arange(300 * 4.0).view(300, 4, 1, 1, 1)
    made = tasks.shuffle(clips, torch.Generator().manual_seed(0))
    assert torch.equal(made.flatten(1).sort(1).values, clips.flatten(1))
    assert not (made == clips).flatten(1).all(1).any()
