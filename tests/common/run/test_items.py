"""Items: what a line of predictions.jsonl holds, what a metric counts, and which mistakes are named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.run.items import Item, OfAll, read_items, read_of_all, score_of, slice_of, write_of_all

ITEM = Item("q1", "image 3", {"natural": (1, 1), "pgd20": (0, 1), "psnr": (31.2, 1)}, {"class": 6, "gap": 4})


def written(folder: Path, *items: Item) -> Path:
    (folder / "predictions.jsonl").write_text("".join(json.dumps(item.to_json()) + "\n" for item in items))
    return folder


def test_a_line_holds_the_whole_item(tmp_path: Path) -> None:
    further = replace(ITEM, further="gap", more={"said": "ship", "shape": [1, 2]})
    assert ITEM.to_json() == {
        "id": "q1", "group": "image 3", "scores": {"natural": [1, 1], "pgd20": [0, 1], "psnr": [31.2, 1]},
        "slices": {"class": 6, "gap": 4},
    }  # fmt: skip
    assert further.to_json()["said"] == "ship" and further.to_json()["further"] == "gap"
    assert read_items(written(tmp_path, ITEM, further)) == [ITEM, further]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    assert len(read_items(written(tmp_path, ITEM))) == 1
    assert len(read_items(written(tmp_path, ITEM, ITEM, ITEM))) == 3
    (tmp_path / "predictions.jsonl").write_text("")
    assert read_items(tmp_path) == [], "a study that answers nothing"


def test_items_count_by_slice_and_those_of_a_further_pass_only_where_theirs_chooses() -> None:
    assert slice_of("accuracy@answer_son_in_law") == ("accuracy", "answer", "son_in_law")
    assert slice_of("accuracy") == ("accuracy", "", "")
    assert (
        ITEM.counts() and ITEM.counts("class", "6") and not ITEM.counts("class", "7") and not ITEM.counts("depth", "6")
    )
    moved = replace(ITEM, further="gap")
    assert moved.counts("gap", "4") and not moved.counts() and not moved.counts("class", "6")


def test_a_score_is_the_sum_of_parts_over_that_of_wholes() -> None:
    items = [Item(name, name, {"recall": pair}) for name, pair in {"a": (3, 4), "b": (0, 4)}.items()]
    assert score_of([*items, ITEM], "recall") == 3 / 8
    with pytest.raises(ValueError, match="recall of no items"):
        score_of([ITEM], "recall")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"scores": {"psnr": (float("inf"), 1)}},
            "psnr of item q1 is inf of 1: .* cap a quality",
        ),
        ({"scores": {"recall": (0, -1)}}, "recall of item q1 is 0 of -1"),
        ({"slices": {"hop_count": 3}}, "slice 'hop_count' of item q1: a name without _ and @"),
        ({"further": "length"}, "a further pass over 'length', which is none of its slices"),
    ],
)
def test_an_item_that_no_metric_could_count_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(ITEM, **changes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "group": "b"}', "no 'scores'"),
        ('{"question": "a", "theory": "t", "correct": true}', "no 'id'"),
        ('{"id": "a", "group": "b", "scores": {"accuracy": true}}', "accuracy is True, a part and a whole are needed"),
        ('{"id": "a", "group": "b", "scores": {"accuracy": [1]}}', r"accuracy is \[1\], a part and a whole"),
        ('{"id": "a", "group": "b", "scores": 1}', "not an item"),
        ('{"id": "a", "group": "b", "scores": {}, "slices": {"a_b": 1}}', "slice 'a_b'"),
    ],
)
def test_a_line_that_is_no_item_is_named_with_its_number_and_a_way_out(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "predictions.jsonl").write_text(f"{json.dumps(ITEM.to_json())}\n{line}\n")
    with pytest.raises(UserError, match=said) as caught:
        read_items(tmp_path)
    assert "predictions.jsonl:2: not an item" in str(caught.value) and "run again" in str(caught.value)


def test_true_is_written_as_a_number_which_can_be_read() -> None:
    item = Item("1", "1", {"natural": (True, 1)})
    line = json.dumps(item.to_json())
    assert "true" not in line and Item.of(json.loads(line)) == item


def test_a_run_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"predictions\.jsonl: no such file; delete the folder and run again"):
        read_items(tmp_path)


def test_numbers_of_all_items_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_of_all(tmp_path) == {}
    found = {"fvd": OfAll(151.5, {"a": 150.0, "b": 160.25}), "fvd@gap_4": OfAll(3.0, {"a": 3.0, "c": 3.5})}
    found["worst"] = OfAll(0.0, {"a": 0.0, "b": 0.0}, count=20.5)
    write_of_all(tmp_path, found)
    assert read_of_all(tmp_path) == found
    (tmp_path / "sets.json").write_text('{"fvd": {"value": 1}}')
    with pytest.raises(UserError, match=r"sets\.json: damaged .* run again"):
        read_of_all(tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scores": {"accuracy": (1, 0)}}, "the whole above 0 or both 0"),
        ({"scores": {"accuracy": (1, -1)}}, "the whole above 0 or both 0"),
        ({"scores": {"accuracy@depth_3": (1, 1)}}, "a name without @"),
        ({"scores": {}, "more": {"group": "other"}}, "'group' is a field of every item"),
    ],
)
def test_an_item_that_readers_would_take_in_different_ways_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Item("i", "g", **more)


@pytest.mark.parametrize("found", [(1.0, {}), (1.0, {"a": 1.0}), (float("nan"), {"a": 1.0, "b": 2.0})])
def test_a_number_of_all_items_without_an_error_is_refused(found: tuple[float, dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="an error can be made"):
        OfAll(*found)


@pytest.mark.parametrize("value, count", [(1.5, 10.0), (-0.1, 10.0), (0.5, 0.0)])
def test_a_number_that_is_no_share_of_so_many_items_is_refused(value: float, count: float) -> None:
    with pytest.raises(ValueError, match="is no share of 1"):
        OfAll(value, {"a": value, "b": value}, count)
