"""Each way of spoiling does what its name says, and nothing else."""

import numpy as np
import pytest

from slowfast_vgen.metrics.spoilt import MORPH, SPOILT, Video, middle

RNG = np.random.default_rng(0)
VIDEO, OTHER = RNG.uniform(size=(2, 3, 40, 6, 8, 3))
CHUNK = 2


def spoilt(name: str) -> Video:
    return SPOILT[name](VIDEO, OTHER, CHUNK, np.random.default_rng(1))


@pytest.mark.parametrize("name", SPOILT)
def test_shape_and_range_stay_and_the_video_changes(name: str) -> None:
    made = spoilt(name)
    assert made.shape == VIDEO.shape and 0 <= made.min() and made.max() <= 1
    assert (made != VIDEO).any(axis=(1, 2, 3, 4)).all()


def test_a_chunk_is_copied_from_the_last_frame_before_it() -> None:
    made = spoilt("copy of last frame")
    for place in range(2, 40):
        np.testing.assert_array_equal(made[:, place], VIDEO[:, place // 2 * 2 - 1])


def test_frozen_shows_the_first_frame_alone() -> None:
    assert (spoilt("freeze") == VIDEO[:, :1]).all()


def test_a_splice_and_a_morph_change_over_in_the_middle() -> None:
    start = middle(40, CHUNK)
    hard, slow = spoilt("splice"), spoilt("16-frame morph")
    np.testing.assert_array_equal(hard, np.concatenate([VIDEO[:, :start], OTHER[:, start:]], 1))
    share = ((slow - VIDEO) / (OTHER - VIDEO)).mean((0, 2, 3, 4))
    between = (share > 1e-9) & (share < 1 - 1e-9)
    assert between.sum() == MORPH and between[start - MORPH // 2 : start + MORPH // 2].all()
    assert np.diff(share).min() > -1e-9 and share[0] == 0 and share[-1] == pytest.approx(1)


def test_noise_has_its_strength_and_blur_is_a_mean() -> None:
    grey = np.full((2, 8, 16, 16, 3), 0.5)
    noise = SPOILT["noise"](grey, grey, CHUNK, np.random.default_rng(0)) - grey
    assert noise.std() == pytest.approx(0.1, rel=0.05) and abs(noise.mean()) < 0.01
    wide = RNG.uniform(size=(1, 2, 9, 9, 3))
    blur = SPOILT["blur"](wide, wide, CHUNK, np.random.default_rng(0))
    np.testing.assert_allclose(blur[0, :, 4, 4], wide[0, :, 2:7, 2:7].mean((1, 2)))


def test_shuffled_and_reversed_keep_the_frames() -> None:
    np.testing.assert_array_equal(spoilt("time reversed"), VIDEO[:, ::-1])
    made = spoilt("shuffled")
    for one, other in zip(made, VIDEO, strict=True):
        assert sorted(one.sum((1, 2, 3))) == sorted(other.sum((1, 2, 3)))
    assert (made[0] == VIDEO[0]).all(axis=(1, 2, 3)).tolist() != (made[1] == VIDEO[1]).all(axis=(1, 2, 3)).tolist()
