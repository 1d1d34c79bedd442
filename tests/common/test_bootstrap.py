"""Bootstrap over seeds and groups: against the textbook's standard errors, and pairing."""

import numpy as np
import pytest

from common.bootstrap import Scores, interval, replicates


def run(values: np.ndarray) -> Scores:
    """One right-or-wrong item a group."""
    return Scores(tuple(f"t{i}" for i in range(len(values))), values.astype(float), np.ones(len(values)))


def test_one_seed_has_the_standard_error_of_a_share() -> None:
    values = np.arange(400) % 4 == 0
    samples = replicates([run(values)])
    assert samples.mean() == pytest.approx(0.25, abs=0.005)
    assert samples.std() == pytest.approx((0.25 * 0.75 / 400) ** 0.5, rel=0.1)


def test_seeds_add_their_own_spread() -> None:
    runs = [run(np.arange(400) < right) for right in (200, 300, 400)]
    between = np.std([0.5, 0.75, 1.0]) / 3**0.5
    within = np.mean([share * (1 - share) / 400 for share in (0.5, 0.75, 1.0)]) / 3
    assert replicates(runs).std() == pytest.approx((between**2 + within) ** 0.5, rel=0.1)


def test_groups_that_hang_together_are_drawn_together() -> None:
    values = np.arange(40) % 2 * 10.0
    grouped = Scores(tuple(map(str, range(40))), values, np.full(40, 10.0))
    assert replicates([grouped]).std() == pytest.approx((0.25 / 40) ** 0.5, rel=0.1)


def test_two_methods_on_the_same_items_are_paired() -> None:
    rng = np.random.default_rng(0)
    ours = [rng.random(300) < 0.7 for _ in range(3)]
    theirs = [each & (np.arange(300) % 30 > 0) for each in ours]  # wrong wherever ours is, and a little more often
    difference = replicates(list(map(run, ours))) - replicates(list(map(run, theirs)))
    low, high = interval(difference)
    assert 0 < low < high < 0.06
    assert difference.std() < 0.5 * replicates(list(map(run, ours))).std()


def test_runs_with_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="different test items"):
        replicates([run(np.ones(3)), run(np.ones(4))])
