"""Intervals: scipy's Wilson for independent items, and simulated coverage for items that hang together."""

import numpy as np
import pytest
from scipy.stats import binomtest

from common.tables.intervals import design_effect, share_interval


@pytest.mark.parametrize("right, count", [(0, 1), (0, 20), (7, 9), (50, 100), (400, 400), (1, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_groups_of_one_give_wilsons_interval(right: int, count: int, confidence: float) -> None:
    got = share_interval([index < right for index in range(count)], range(count), confidence)
    oracle = binomtest(right, count).proportion_ci(confidence, method="wilson")
    assert (got.value, got.count) == (right / count, count)
    assert (got.low, got.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_questions_that_are_copies_of_one_another_count_once() -> None:
    answers = [True, False, True, True, False, True, True, False] * 5
    copied = [answer for answer in answers for _ in range(6)]
    groups = [index // 6 for index in range(len(copied))]
    assert design_effect(copied, groups) == pytest.approx(6 * (40 / 39) * (239 / 240))
    single, many = share_interval(answers, range(40)), share_interval(copied, groups)
    assert many.value == single.value
    assert many.high - many.low == pytest.approx(single.high - single.low, rel=0.06)


def test_where_nothing_can_be_estimated_a_group_counts_as_one_item() -> None:
    assert design_effect([True] * 12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]) == 3
    assert design_effect([True, False, True], ["only"] * 3) == 3
    all_right = share_interval([True] * 12, [index // 3 for index in range(12)])
    assert all_right.high == 1
    assert all_right.low < share_interval([True] * 12, range(12)).low


def test_matched_questions_never_narrow_the_interval() -> None:
    answers, groups = [True, False] * 50, [index // 2 for index in range(100)]  # one right in every pair
    assert design_effect(answers, groups) == 1
    paired, single = share_interval(answers, groups), share_interval(answers, range(100))
    assert paired.low <= single.low and paired.high >= single.high


@pytest.mark.parametrize("share", [0.5, 0.85])
@pytest.mark.parametrize("groups, size, correlation", [(20, 8, 0.3), (60, 4, 0.6), (60, 4, 0.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(
    share: float, groups: int, size: int, correlation: float
) -> None:
    rng = np.random.default_rng(1)
    covered, naive, trials = 0, 0, 300
    for _ in range(trials):
        spread = (1 - correlation) / correlation if correlation else 1e9
        shares = rng.beta(share * spread, (1 - share) * spread, groups)
        answers = rng.random((groups, size)) < shares[:, None]
        keys = np.repeat(np.arange(groups), size).tolist()
        interval = share_interval(answers.ravel().tolist(), keys)
        covered += interval.low <= share <= interval.high
        plain = share_interval(answers.ravel().tolist(), range(groups * size))
        naive += plain.low <= share <= plain.high
    assert covered / trials >= 0.91  # three standard errors below 0.95
    if correlation:
        assert naive < covered


def test_no_items_and_odd_confidences_are_mistakes() -> None:
    with pytest.raises(ValueError, match="no items"):
        share_interval([], [])
    with pytest.raises(ValueError, match=r"1\.5 is no share of 1; a count or a quality has another interval"):
        share_interval([1, 2], [0, 1])
    with pytest.raises(ValueError, match="confidence=95"):
        share_interval([True], [0], 95)
    with pytest.raises(ValueError, match="shorter"):
        share_interval([True, False], [0])
