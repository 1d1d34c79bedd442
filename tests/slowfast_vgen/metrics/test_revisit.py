"""SRC: cosines, a floor that equals the mean over all pairs, and the scale between floor and ceiling."""

import numpy as np
import pytest

from slowfast_vgen.metrics.revisit import Scale, floor_of, scale, similarity

RNG = np.random.default_rng(0)


def test_similarity_is_the_cosine_times_100() -> None:
    first = np.array([[1.0, 0], [2, 0], [1, 1], [0, 0]])
    later = np.array([[3.0, 0], [0, 5], [1, 0], [1, 0]])
    np.testing.assert_allclose(similarity(first, later), [100, 0, 50 * 2**0.5, 0], atol=1e-9)


def test_the_floor_is_the_mean_over_all_pairs_of_different_groups() -> None:
    features, groups = RNG.normal(1, 1, (30, 5)), RNG.integers(0, 4, 30).tolist()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = [100 * unit[i] @ unit[j] for i in range(30) for j in range(30) if groups[i] != groups[j]]
    assert floor_of(features, groups) == pytest.approx(np.mean(pairs))


def test_the_scale_runs_from_unrelated_frames_to_true_revisits() -> None:
    frames = np.eye(4) + 0.3
    found = scale(frames, range(4), frames, frames)
    assert found.ceiling == pytest.approx(100) and found.floor == pytest.approx(floor_of(frames, range(4)))
    assert found.rescaled(found.floor) == 0 and found.rescaled(found.ceiling) == 100
    assert Scale(60, 100).rescaled(np.array([50.0, 80])) == pytest.approx([-25, 50])


def test_features_that_tell_nothing_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"true revisits score 100.00, unrelated frames 100.00"):
        scale(np.ones((4, 3)), range(4), np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="5 frames of one group"):
        floor_of(RNG.normal(size=(5, 3)), "aaaaa")
    with pytest.raises(ValueError, match=r"\(2, 3\) of first visits and \(3, 3\)"):
        similarity(np.ones((2, 3)), np.ones((3, 3)))
