"""Estimates over seeds and groups: textbook standard errors, pairing, and how often intervals hold the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from common.tables.estimates import Estimate, Jackknife, Scores, over_items, over_values

SIMULATED = 1000


def run(values: np.ndarray) -> Scores:
    """One right-or-wrong item a group."""
    return Scores(tuple(f"t{i}" for i in range(len(values))), values.astype(float), np.ones(len(values)))


def half(estimate: Estimate) -> float:
    low, high = estimate.interval()
    assert (low + high) / 2 == pytest.approx(estimate.value)
    return (high - low) / 2


def test_one_seed_has_the_standard_error_of_a_share() -> None:
    estimate = over_items("", [run(np.arange(400) % 4 == 0)])
    assert estimate.value == 0.25
    assert half(estimate) == pytest.approx(1.966 * (0.25 * 0.75 / 399) ** 0.5, rel=1e-3)


def test_a_ratio_of_groups_is_the_one_of_cochran() -> None:
    """Groups of different sizes: G/(G-1) sum (s - r m)^2 / n^2, by hand."""
    estimate = over_items("", [Scores(("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0, 4.0]))])
    variance = 3 / 2 * ((1 - 2.4) ** 2 + (2 - 1.2) ** 2 + (3 - 2.4) ** 2) / 100
    assert half(estimate) == pytest.approx(4.3027 * variance**0.5, rel=1e-4)


def test_seeds_of_one_and_the_same_item_share_give_students_interval() -> None:
    """Runs whose groups are all alike vary between seeds alone."""
    values = [0.5, 0.6, 0.9]
    runs = [Scores(("a", "b"), np.full(2, value), np.ones(2)) for value in values]
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert over_items("", runs).interval() == pytest.approx(tuple(expected))
    assert over_values("", values).interval() == pytest.approx(tuple(expected))


def test_two_methods_on_the_same_items_are_paired() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(300) < 0.7
    ours = theirs | (np.arange(300) % 20 == 0)
    paired = over_items("ours", [run(ours)]) - over_items("theirs", [run(theirs)])
    apart = over_items("ours", [run(ours)], items="x") - over_items("theirs", [run(theirs)], items="y")
    low, high = paired.interval()
    assert 0 < low < high < 0.04 and half(paired) < 0.4 * half(apart)


def test_what_two_estimates_share_cancels() -> None:
    runs = [run(np.arange(40) < right) for right in (20, 25, 30)]
    once = over_items("ours", runs)
    assert (once - once).interval() == (0.0, 0.0)
    assert ((once + once) * 0.5).interval() == pytest.approx(once.interval())
    theirs = over_items("theirs", runs)  # other runs with the same scores: seeds do not cancel
    assert half(once - theirs) == pytest.approx(2.776 * 2**0.5 * 0.125 / 3**0.5, rel=1e-3)


def test_groups_that_only_some_runs_count_are_no_error() -> None:
    """Recall has a denominator only where something was to be recited."""
    full, less = run(np.arange(40) % 2), run(np.arange(30) % 2)
    both = over_items("", [full, less])
    assert both.value == 0.5 and both.groups == 40


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (2, 0.0), (2, 0.05), (3, 0.0), (3, 0.05), (3, 0.2), (5, 0.05)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    """Two methods without a difference, on the same items: the interval of their difference holds zero."""
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(SIMULATED):
        easy = rng.normal(0.7, 0.2, 60)
        both = []
        for name in ("ours", "theirs"):
            level = rng.normal(0, spread, seeds)
            both.append(over_items(name, [run(rng.random(60) < easy + seed) for seed in level]))
        low, high = (both[0] - both[1]).interval()
        held += low <= 0 <= high
    assert 0.935 < held / SIMULATED < 0.995


def test_one_number_has_the_error_it_says() -> None:
    assert half(over_values("", [5.0], within=2.0)) == pytest.approx(1.96 * 2, rel=1e-3)
    assert over_values("", [5.0]).interval() == (5.0, 5.0)


# ---- numbers that only all items together have


def jackknifed(number: Callable[[np.ndarray], float], values: np.ndarray) -> Jackknife:
    """`number` of all values, one a group, and without each of them."""
    without = {f"t{i}": number(np.delete(values, i, axis=0)) for i in range(len(values))}
    return Jackknife.of(number(values), without)


def distance(values: np.ndarray) -> float:
    """A Frechet distance: of a normal distribution with the values' mean and deviation to the standard one."""
    return float(values.mean() ** 2 + (values.std(ddof=1) - 1) ** 2)


def test_leaving_out_groups_of_a_mean_gives_the_usual_variance() -> None:
    """Closed form: s^2 / n, by hand and by the sums over items."""
    values = np.random.default_rng(0).normal(3, 2, 40)
    ours, sums = jackknifed(np.mean, values), run(values)
    assert ours.moves == pytest.approx(((values - values.mean()) / 40)[[int(name[1:]) for name in ours.groups]])
    estimate = over_items("", [ours])
    variance = sum(move**2 for move in estimate.items.values())
    assert variance == pytest.approx(values.var(ddof=1) / 40)
    by_items = Scores.of((f"t{i}", value, 1.0) for i, value in enumerate(values))
    assert estimate.interval() == pytest.approx(over_items("", [by_items]).interval())
    assert sums.value == pytest.approx(estimate.value)


def test_numbers_of_all_items_are_paired_over_groups_and_combine_with_seeds() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1, 60)
    runs = {name: [truth + rng.normal(shift, 0.05, 60) for _ in range(3)] for name, shift in (("a", 0.3), ("b", 0.4))}
    first, second = (over_items(name, [jackknifed(distance, each) for each in own]) for name, own in runs.items())
    apart = over_items("b", [jackknifed(distance, each) for each in runs["b"]], items="others")
    assert half(second - first) < 0.5 * half(apart - first)
    assert (first - first).interval() == (0.0, 0.0)
    seeds = [jackknifed(distance, each).value for each in runs["a"]]
    assert first.value == pytest.approx(np.mean(seeds)) and first.runs["a"][1] == 3
    assert half(first) > half(over_values("", seeds)) * 0.3


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_a_distance_hold_its_expectation_as_often_as_they_say(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    expected = np.mean([distance(rng.normal(0.8, 1.3, 50)) for _ in range(20_000)])
    held = 0
    for _ in range(SIMULATED // 2):
        shared = rng.normal(0.8, 1.3, 50)  # seeds answer about the same items
        own = [jackknifed(distance, shared + rng.normal(0, 0.001, 50)) for _ in range(seeds)]
        low, high = over_items("", own).interval()
        held += low <= expected <= high
    assert 0.90 < held / (SIMULATED // 2) < 0.99


def test_paired_seeds_cancel_what_both_rows_share() -> None:
    ours, theirs = [0.60, 0.10, 0.64, 0.61], [0.61, 0.12, 0.64, 0.63]  # the second seed is stuck for both
    seeds = [1, 2, 3, 4]
    apart = over_values("a", ours, paired=seeds) - over_values("b", theirs, paired=seeds)
    differences = np.subtract(ours, theirs)
    error = differences.std(ddof=1) / 2
    expected = t.interval(0.95, 3, differences.mean(), error)
    assert apart.interval() == pytest.approx(expected)
    assert over_values("a", ours, paired=seeds).interval() == pytest.approx(over_values("a", ours).interval())
    loose = over_values("a", ours) - over_values("b", theirs)
    assert half(loose) > 10 * half(apart)


def test_paired_seeds_of_runs_with_items_keep_both_errors() -> None:
    rng = np.random.default_rng(3)
    groups = [f"g{i}" for i in range(50)]
    right = rng.random((4, 50)) < 0.7
    runs = [Scores.of((g, float(r), 1.0) for g, r in zip(groups, row, strict=True)) for row in right]
    paired, free = over_items("a", runs, paired=[1, 2, 3, 4]), over_items("a", runs)
    assert paired.items == free.items and paired.interval() == pytest.approx(free.interval())
    assert (paired - over_items("b", runs, paired=[1, 2, 3, 4])).interval() == (0.0, 0.0)


def test_a_single_group_decides_nothing() -> None:
    ours, theirs = (over_items(name, [Scores.of([("g", part, 4)])]) for name, part in (("a", 3), ("b", 2)))
    assert (ours - theirs).interval() == (-math.inf, math.inf)
