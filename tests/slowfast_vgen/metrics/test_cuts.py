"""SCuts: clips made by hand whose cuts are known, and PySceneDetect itself where it is installed."""

import colorsys

import numpy as np
import pytest

from slowfast_vgen.metrics.cuts import SHORTEST, content, cuts, hsv

RNG = np.random.default_rng(0)


def plain(*greys: int) -> np.ndarray:
    """A video of frames of one grey each."""
    return np.tile(np.array(greys, np.uint8)[:, None, None, None], (1, 4, 6, 3))


def test_hsv_is_the_standard_one_to_a_step_of_8_bits() -> None:
    colours = RNG.integers(0, 256, (500, 3)).astype(np.uint8)
    wanted = np.array([colorsys.rgb_to_hsv(*colour) for colour in (colours / 255).tolist()]) * [180, 255, 255]
    off = np.abs(hsv(colours) - wanted)
    off[:, 0] = np.minimum(off[:, 0], 180 - off[:, 0])  # hue is a circle
    assert off.max() < 1
    named = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    assert hsv(named).tolist() == [[0, 255, 255], [60, 255, 255], [120, 255, 255], [0, 0, 255], [0, 0, 0]]


def test_content_is_the_mean_move_of_the_three_channels() -> None:
    assert content(plain(10, 10, 40, 25)).tolist() == [0, 0, 10, 5]  # of grey only the value moves


def test_a_hard_change_of_a_still_video_is_one_cut_at_its_first_frame() -> None:
    assert cuts(plain(*[0] * 20, *[200] * 20)) == [20]


def test_a_change_below_the_least_content_is_no_cut() -> None:
    assert cuts(plain(*[0] * 20, *[44] * 20)) == []
    assert cuts(plain(*[0] * 20, *[45] * 20)) == [20]


def test_a_change_that_all_its_neighbours_share_is_no_cut() -> None:
    assert cuts(plain(*[0, 200] * 20)) == []


def test_a_jump_of_three_times_its_neighbours_is_a_cut_and_a_smaller_one_is_not() -> None:
    before, after = [60, 76] * 10, [0, 16] * 10  # a content value of 16 / 3 each frame
    for jump, found in ((49, [20]), (47, [])):
        assert cuts(plain(*before, *[76 + jump + step for step in after])) == found


def test_scenes_have_fifteen_frames_at_least() -> None:
    assert cuts(plain(*[0] * (SHORTEST - 1), *[200] * 20)) == []
    assert cuts(plain(*[0] * SHORTEST, *[200] * 20)) == [SHORTEST]
    assert cuts(plain(*[0] * 20, *[200] * 5, *[0] * 30)) == [20]


def test_cuts_in_the_last_two_frames_are_not_seen() -> None:
    assert cuts(plain(*[0] * 20, *[200] * 2)) == []
    assert cuts(plain(*[0] * 20, *[200] * 3)) == [20]


def test_a_short_video_and_a_frozen_one_have_none() -> None:
    assert cuts(plain(0, 255)) == cuts(plain(*[9] * 60)) == []


def test_frames_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float64 \(3, 4, 6, 3\): uint8"):
        cuts(np.zeros((3, 4, 6, 3)))  # type: ignore[arg-type]


def test_the_cuts_are_those_of_pyscenedetect() -> None:
    scenedetect = pytest.importorskip("scenedetect", reason="scenedetect is not installed")
    counts = []
    for clip in range(220):
        length = int(RNG.integers(20, 70))
        scenes = RNG.integers(0, 256, (length // 10 + 1, 8, 16, 3))
        starts = np.sort(RNG.integers(0, length, len(scenes)))
        which = (np.arange(length)[:, None] >= starts).sum(1) - 1
        fade = np.linspace(0, 1, length)[:, None, None, None]
        noise = RNG.normal(0, (0, 3, 20)[clip % 3], (length, 8, 16, 3))
        video = np.clip(scenes[which] * (1 - fade / 2) + 127 * fade / 2 + noise, 0, 255).astype(np.uint8)
        detector = scenedetect.AdaptiveDetector()
        theirs = [
            found.frame_num
            for place, frame in enumerate(video)
            for found in detector.process_frame(
                scenedetect.FrameTimecode(place, fps=30.0), np.ascontiguousarray(frame[..., ::-1])
            )
        ]
        assert cuts(video) == theirs
        counts.append(len(theirs))
    assert sum(count > 0 for count in counts) > 50
