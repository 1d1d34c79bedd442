"""Draws keyed by item and draw."""

import numpy as np

from slowfast_vgen.worlds.draws import Draws, ringed

ITEMS = np.arange(20000)


def test_a_draw_depends_on_its_key_item_and_number_alone() -> None:
    draws = Draws(0, "train", "layout")
    whole = draws.bits(ITEMS[:50, None], np.arange(7))
    assert whole[13, 4] == draws.bits(np.array([13]), 4)[0]
    assert len(np.unique(whole)) == whole.size
    assert not np.array_equal(Draws(1, "train", "layout").bits(ITEMS[:50]), whole[:, 0])


def test_numbers_are_uniform_and_neighbours_are_independent() -> None:
    draws = Draws(0, "x")
    x = draws.floats(ITEMS[:, None], np.arange(2))
    assert x.min() >= 0 and x.max() < 1 and abs(x.mean() - 0.5) < 0.01 and abs(x.var() - 1 / 12) < 0.003
    pairs = (x[:, 0], x[:, 1]), (x[1:, 0], x[:-1, 0]), (x[1:, 0], x[:-1, 1])
    assert max(abs(np.corrcoef(*pair)[0, 1]) for pair in pairs) < 0.03
    assert np.abs(np.bincount(draws.integers(ITEMS, 5)) / len(ITEMS) - 0.2).max() < 0.015


def test_a_ring_is_the_same_wherever_it_is_cut_and_no_other() -> None:
    rows = Draws(0, "ring").integers(ITEMS[:500, None], 3, np.arange(7))
    assert ringed(np.roll(rows, 2, 1)) == ringed(rows)
    canonical = {min(tuple(np.roll(row, turn).tolist()) for turn in range(7)) for row in rows}
    assert len(set(ringed(rows))) == len(canonical)
    assert ringed(np.array([[0, 1, 2]])) != ringed(np.array([[2, 1, 0]]))
