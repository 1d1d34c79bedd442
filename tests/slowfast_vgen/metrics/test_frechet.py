"""The Frechet distance: closed forms, scipy's matrix root, and leaving out by computing anew."""

import logging

import numpy as np
import pytest
from scipy.linalg import sqrtm

from slowfast_vgen.metrics.frechet import Moments, distance, frechet

RNG = np.random.default_rng(0)


def plain(real: np.ndarray, made: np.ndarray) -> float:
    spread, other = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    apart = ((real.mean(0) - made.mean(0)) ** 2).sum()
    return float(apart + np.trace(spread + other - 2 * sqrtm(spread @ other).real))


def features(count: int, width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    real = RNG.normal(3, 1, (count, width)) @ RNG.normal(0, 1, (width, width))
    return real, RNG.normal(2.5, 1.4, (count, width)) @ RNG.normal(0, 1, (width, width))


def test_the_distance_in_one_dimension_is_that_of_means_and_deviations() -> None:
    real, made = RNG.normal(0, 1, (60, 1)), RNG.normal(3, 2, (60, 1))
    wanted = (real.mean() - made.mean()) ** 2 + (real.std(ddof=1) - made.std(ddof=1)) ** 2
    assert distance(Moments.of(real), Moments.of(made)) == pytest.approx(wanted)


def test_value_and_every_value_without_a_group_equal_computing_anew() -> None:
    real, made = features(60)
    groups = [place % 7 for place in range(60)]
    found = frechet(real, made, groups)
    assert found.value == pytest.approx(plain(real, made), rel=1e-9)
    assert list(found.without) == [str(group) for group in range(7)]
    for group in range(7):
        left = np.array(groups) != group
        assert found.without[str(group)] == pytest.approx(plain(real[left], made[left]), rel=1e-9)


def test_features_that_are_never_on_do_not_break_the_root() -> None:
    real, made = features(80)
    dead = np.zeros((80, 2))
    padded = frechet(np.hstack([real, dead, real[:, :1]]), np.hstack([made, dead, made[:, :1]]), range(80))
    doubled = plain(np.hstack([real, real[:, :1]]), np.hstack([made, made[:, :1]]))
    assert padded.value == pytest.approx(doubled, rel=1e-6)


def test_equal_sets_are_at_no_distance_and_a_far_origin_costs_no_digits() -> None:
    real, made = features(60)
    assert frechet(real, real, range(60)).value == pytest.approx(0, abs=1e-9)
    near, far = (frechet(real + shift, made + shift, range(60)).value for shift in (0, 1e5))
    assert far == pytest.approx(near, rel=1e-6)


def test_counts_that_differ_are_refused() -> None:
    real, made = features(60)
    with pytest.raises(ValueError, match=r"\(60, 4\) of real clips and \(59, 4\) of made ones in 60 groups"):
        frechet(real, made[1:], range(60))
    with pytest.raises(ValueError, match="group 0 has 59 of 60 clips"):
        frechet(real, made, [0] * 59 + [1])


def test_too_few_clips_for_the_features_are_said(caplog: pytest.LogCaptureFixture) -> None:
    real, made = features(39)
    with caplog.at_level(logging.WARNING):
        frechet(real, made, range(39))
    assert "39 clips: with 4 features it needs 40" in caplog.text
    caplog.clear()
    frechet(*features(40), range(40))
    assert caplog.text == ""
