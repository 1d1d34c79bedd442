"""Numbers of classes and clients, and their intervals, by hand."""

import math

import pytest
import torch
from torch import Tensor

from common.tables.intervals import wilson
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


def test_a_client_whose_classes_have_no_image_counts_nowhere() -> None:
    found = of_classes(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([[4, 0], [1, 1], [3, 0]]))
    assert {name: each.value for name, each in found.items()} == dict.fromkeys(found, 0.5)
    nobody = of_classes(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([[4, 0]]))
    assert (nobody["worst_client"].value, nobody["worst_client"].count) == (1.0, None)


def interval(right: Tensor, y: Tensor, counts: Tensor, name: str, confidence: float = 0.95) -> tuple[float, float]:
    found = summarise([], of_classes(right, y, counts), confidence)[name]
    return found.low, found.high


def test_a_number_of_nothing_but_wrong_answers_has_the_width_of_its_images() -> None:
    """Of two classes at 0 % the one with fewer images says less."""
    right, y = torch.cat([torch.zeros(100), torch.ones(300)]), torch.tensor([0] * 20 + [1] * 80 + [2] * 300)
    counts = torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert interval(right, y, counts, "worst_class") == pytest.approx(wilson(0.0, 20, 1.959964))
    effective = 1 / (0.25 / 20 + 0.25 / 80)  # half of each class
    assert interval(right, y, counts, "worst_client") == pytest.approx(wilson(0.0, effective, 1.959964))
    assert interval(1 - right, y, counts[1:], "worst_client")[0] == 0.0
    assert interval(torch.ones(400), y, counts, "worst_class") == pytest.approx(wilson(1.0, 20, 1.959964))


def test_intervals_are_those_of_the_jackknife_and_wilsons_at_the_least() -> None:
    """150 images of each class: of class 0 two thirds are right, of class 1 one third."""
    right, y = RIGHT.repeat(50), Y.repeat(50)
    for confidence, quantile in ((0.95, 1.959964), (0.5, 0.674490)):
        half = quantile * math.sqrt(1 / 3 * 2 / 3 / 149)
        low, high = interval(right, y, torch.tensor([[1, 1]]), "worst_class", confidence)
        assert low == pytest.approx(1 / 3 - half, rel=1e-3)
        assert high == pytest.approx(max(1 / 3 + half, wilson(1 / 3, 150, quantile)[1]), rel=1e-3)
