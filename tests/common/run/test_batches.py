"""The order of items: every pass holds each once, and any batch can be asked for at any time."""

import random
from collections import Counter

import pytest

from common.run.batches import Batches

ITEMS = list(range(7))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_every_pass_holds_each_item_once(size: int) -> None:
    batches = Batches(ITEMS, size, seed=0)
    drawn = [item for number in range(7 * 3) for item in batches[number]]
    assert all(len(batches[number]) == size for number in range(5))
    for start in range(0, len(drawn), 7):
        assert sorted(drawn[start : start + 7]) == ITEMS


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    forward, backward = Batches(ITEMS, 3, seed=5), Batches(ITEMS, 3, seed=5)
    there = [forward[number] for number in range(20)]
    back = [backward[number] for number in reversed(range(20))]
    assert there == back[::-1]


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = Counter(tuple(Batches(ITEMS, 7, seed)[number]) for seed in range(4) for number in range(5))
    assert len(orders) > 15


def test_an_item_may_look_different_in_every_pass_and_always_the_same_in_one() -> None:
    def drawn(item: int, rng: random.Random) -> tuple[int, int]:
        return item, rng.randrange(10**9)

    batches, again, other = (Batches(ITEMS, 2, seed, drawn) for seed in (0, 0, 1))
    found = [item for number in range(14) for item in batches[number]]
    assert [item for number in reversed(range(14)) for item in reversed(again[number])] == found[::-1]
    assert len({extra for _, extra in found}) == 28, "four passes over seven items, drawn apart"
    plain = Batches(ITEMS, 2, seed=0)
    assert [item for item, _ in found] == [item for number in range(14) for item in plain[number]]
    assert {extra for number in range(14) for _, extra in other[number]}.isdisjoint(extra for _, extra in found)


def test_items_are_asked_for_when_their_batch_is() -> None:
    """So that a sequence that makes its items need not make all."""
    asked: list[int] = []

    class Lazy(list[int]):
        def __getitem__(self, index: int) -> int:  # type: ignore[override]
            asked.append(index)
            return super().__getitem__(index)

    batches = Batches(Lazy(ITEMS), 3, seed=0)
    assert asked == []
    batches[1000]
    assert len(asked) == 3


def test_a_step_has_the_batches_after_those_of_the_step_before() -> None:
    batches = Batches(ITEMS, 3, seed=5)
    assert list(batches.of(1)) == [batches[0]]
    assert [batch for step in (1, 2, 3) for batch in batches.of(step, 2)] == [batches[number] for number in range(6)]
