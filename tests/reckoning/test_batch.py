"""Ragged rows become rectangles without losing or inventing anything."""

import torch

from reckoning.batch import to_rows, to_stack
from reckoning.templates import Row

CPU = torch.device("cpu")
SHORT, LONG, OTHER = Row((5, 6), 1), Row((1, 2, 3, 4), 2), Row((7, 8, 9), 1)


def test_rows_are_padded_on_the_right_and_padding_is_not_scored() -> None:
    rows = to_rows([SHORT, LONG], pad=0, device=CPU, dtype=torch.float32)
    assert rows.ids.tolist() == [[5, 6, 0, 0], [1, 2, 3, 4]]
    assert rows.scored.tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]
    assert rows.weight.tolist() == [0.5, 0.5]


def test_a_task_with_fewer_rows_is_filled_with_rows_of_weight_zero() -> None:
    rows = to_stack([[SHORT, LONG], [OTHER], []], pad=0, device=CPU, dtype=torch.float32)
    assert rows.ids.tolist() == [[[5, 6, 0, 0], [1, 2, 3, 4]], [[7, 8, 9, 0], [0] * 4], [[0] * 4] * 2]
    assert rows.weight.tolist() == [[0.5, 0.5], [1, 0], [0, 0]]
    assert rows.scored[1].tolist() == [[0, 1, 1, 0], [0] * 4]


def test_padding_that_is_a_token_of_the_text_is_still_scored_inside_the_text() -> None:
    rows = to_rows([Row((3, 0), 1), LONG], pad=0, device=CPU, dtype=torch.float32)
    assert rows.scored.tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]


def test_shares_replace_equal_weights() -> None:
    rows = to_rows([SHORT, LONG], pad=0, device=CPU, dtype=torch.float64, shares=[0.25, 1.0])
    assert rows.weight.tolist() == [0.25, 1.0]
    stacked = to_stack([[SHORT, LONG], [OTHER]], pad=0, device=CPU, dtype=torch.float64, shares=[[0.25, 1.0], [2.0]])
    assert stacked.weight.tolist() == [[0.25, 1.0], [2.0, 0]]


def test_losses_are_summed_in_at_least_float32() -> None:
    kinds = {torch.bfloat16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    for dtype, expected in kinds.items():
        rows = to_rows([SHORT], pad=0, device=CPU, dtype=dtype)
        assert (rows.scored.dtype, rows.weight.dtype) == (expected, expected)
