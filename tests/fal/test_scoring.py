"""Numbers of classes and clients, and their intervals, by hand."""

import pytest
import torch

from fal.scoring import Judged, items_of, of_classes, of_models, summarise

RIGHT = torch.tensor([1, 1, 0, 1, 0, 0])
Y = torch.tensor([0, 0, 0, 1, 1, 1])


def test_a_client_is_as_accurate_as_the_mixture_of_its_classes() -> None:
    counts = torch.tensor([[3, 1, 0], [0, 2, 0], [1, 1, 6]])  # of class 2 the split has no image
    found = {name: each.value for name, each in of_classes(RIGHT, Y, counts).items()}
    assert found == pytest.approx({"worst_class": 1 / 3, "worst_client": 1 / 3, "lowest_fifth": 1 / 3})
    alone = of_classes(RIGHT, Y, counts[[0, 2]])["worst_client"].value
    assert alone == pytest.approx(0.5 * 2 / 3 + 0.5 / 3)


def test_two_images_are_enough() -> None:
    found = of_classes(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([[2, 2], [4, 0]]))
    assert {name: each.value for name, each in found.items()} == {
        "worst_class": 0.0, "worst_client": 0.0, "lowest_fifth": 0.0
    }  # fmt: skip


def test_a_client_with_a_model_of_its_own_is_judged_by_that() -> None:
    """By class: model 0 is right on 2/3 and 1/3, model 1 on 1/3 and 2/3."""
    counts, right = torch.tensor([[4, 0], [1, 1]]), torch.stack([RIGHT, 1 - RIGHT])
    found = of_models(right, Y, counts)
    expected = {"worst_class": 1 / 3, "worst_client": 0.5, "lowest_fifth": 0.5}
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
    assert found["worst_client"].without["image 2"] == pytest.approx((0 + 2 / 3) / 2)
    alone = of_models(right[:1], Y, counts)
    assert {name: each.value for name, each in alone.items()} == {
        name: each.value for name, each in of_classes(RIGHT, Y, counts).items()
    }


def test_items_of_several_models_are_right_by_a_share() -> None:
    right = torch.stack([RIGHT, 1 - RIGHT, torch.ones_like(RIGHT), torch.ones_like(RIGHT)])
    shown = [item.scores["pgd"] for item in items_of(Judged(*[{"pgd": right}] * 3), Y, "test")]
    assert set(shown) == {(0.75, 1)}


def test_intervals_are_as_wide_as_confidence_asks() -> None:
    of_all = of_classes(RIGHT.repeat(50), Y.repeat(50), torch.tensor([[1, 1]]))

    def widths(confidence: float) -> dict[str, float]:
        return {name: each.high - each.low for name, each in summarise([], of_all, confidence).items()}

    wide, narrow = widths(0.95), widths(0.5)
    assert all(wide[name] / narrow[name] == pytest.approx(1.959964 / 0.674490, rel=1e-5) for name in wide)
