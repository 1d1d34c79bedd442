"""Numbers of classes and clients, and their intervals, by hand."""

import pytest
import torch

from fal.scoring import of_classes, summarise

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


def test_intervals_are_as_wide_as_confidence_asks() -> None:
    of_all = of_classes(RIGHT.repeat(50), Y.repeat(50), torch.tensor([[1, 1]]))

    def widths(confidence: float) -> dict[str, float]:
        return {name: each.high - each.low for name, each in summarise([], of_all, confidence).items()}

    wide, narrow = widths(0.95), widths(0.5)
    assert all(wide[name] / narrow[name] == pytest.approx(1.959964 / 0.674490, rel=1e-5) for name in wide)
