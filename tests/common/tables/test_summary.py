"""What a run reports of its items: any metric, in all and by slice, with the interval of its kind."""

import pytest

from common.run.items import Item
from common.run.results import Interval
from common.tables.intervals import Kind, mean_interval, share_interval
from common.tables.summary import interval_of, summarise


def item(place: int, **scores: tuple[float, float]) -> Item:
    """Two items a group, depths 9 and 10, kinds a and b."""
    return Item(f"i{place}", f"g{place // 2}", scores, {"depth": 9 + place % 2, "kind": "ab"[place // 4]})


ITEMS = [item(place, accuracy=(place % 3 == 0, 1), psnr=(20.0 + place, 1)) for place in range(8)]


def test_every_metric_has_an_interval_in_all_and_by_the_slices_that_are_asked() -> None:
    found = summarise(ITEMS, 0.9, by={"accuracy": ("kind", "depth")}, kinds={"psnr": Kind.quality})
    assert list(found) == ["accuracy", "accuracy@kind_a", "accuracy@kind_b", "accuracy@depth_9", "accuracy@depth_10",
                           "psnr"]  # fmt: skip
    groups = [each.group for each in ITEMS]
    assert found["accuracy"] == share_interval([place % 3 == 0 for place in range(8)], groups, 0.9)
    assert found["psnr"] == mean_interval([20.0 + place for place in range(8)], groups, 0.9)
    assert found["accuracy@depth_10"] == share_interval([False, True, False, False], groups[1::2], 0.9)


def test_a_share_of_pieces_is_that_of_the_pieces_one_by_one() -> None:
    pieces = [(3, 4), (0, 2), (1, 1), (0, 0)]
    items = [item(place, recall=pair) for place, pair in enumerate(pieces)]
    one_by_one = [number < part for part, whole in pieces for number in range(whole)]
    groups = [each.group for each, (_, whole) in zip(items, pieces, strict=True) for _ in range(whole)]
    assert interval_of(items, "recall") == share_interval(one_by_one, groups)
    assert interval_of([item(0, recall=(0, 0))], "recall") == Interval(0.0, 0, 0.0, 1.0)


def test_items_without_a_metric_and_those_of_further_passes_do_not_count() -> None:
    further = [Item("x", "g0", {"accuracy": (1, 1)}, {"length": 4096}, "length")]
    own = [Item(f"i{n}", f"g{n}", {"accuracy": (0, 1)} if n else {}, {"length": 1024}) for n in range(3)]
    found = summarise([*own, *further], 0.95, by={"accuracy": ("length", "depth")})
    assert {name: (got.value, got.count) for name, got in found.items()} == {
        "accuracy": (0.0, 2), "accuracy@length_1024": (0.0, 2), "accuracy@length_4096": (1.0, 1),
    }  # fmt: skip
    with pytest.raises(ValueError, match="no item has accuracy@length_1"):
        interval_of(own, "accuracy@length_1")


def test_what_is_known_without_counting_has_no_width() -> None:
    items = [item(place, chance=(0.25, 1), accuracy=(1, 1)) for place in range(4)]
    found = summarise(items, 0.95, by={"chance": ("depth",)}, exact=("chance",))
    assert found["chance"] == Interval(0.25, 4, 0.25, 0.25) and found["chance@depth_9"] == Interval(0.25, 2, 0.25, 0.25)
    assert found["accuracy"].low < 1.0


def test_counts_and_qualities_are_not_held_between_0_and_1() -> None:
    cuts = [item(place, cuts=(2 + place % 2 * 5, 1)) for place in range(8)]
    for kind in (Kind.count, Kind.quality):
        got = interval_of(cuts, "cuts", kind)
        assert got.value == 4.5 and got.low <= 4.5 <= got.high
    spread = [Item(str(n), str(n), {"gain": (value, 1)}) for n, value in enumerate((-30.0, 40.0, -50.0))]
    got = interval_of(spread, "gain", Kind.quality)
    assert got.low < -100 and got.high > 100


def test_what_has_no_whole_is_left_out_and_what_is_rounded_is_a_share() -> None:
    items = [Item(f"i{n}", f"g{n}", {"psnr": (20.0 * n, n)}, {"gap": n}) for n in range(3)]
    found = summarise(items, 0.95, by={"psnr": ["gap"]}, kinds={"psnr": Kind.quality})
    assert list(found) == ["psnr", "psnr@gap_1", "psnr@gap_2"] and found["psnr"].value == 20.0
    assert interval_of([item(0, share=(0.5, 1)), item(2, share=(0, 0))], "share").value == 0.5
    assert interval_of([item(n, share=(0.1 + 0.2, 0.3)) for n in range(3)], "share").value == 1.0
