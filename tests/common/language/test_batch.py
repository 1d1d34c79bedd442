"""Ragged rows become rectangles without losing or inventing anything."""

import torch

from common.language.batch import Row, micro_batches, to_rows, to_stack

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


def test_micro_batches_are_all_rows_in_order_and_their_weights_add_up() -> None:
    rows = to_rows([SHORT, LONG, OTHER], pad=0, device=CPU, dtype=torch.float32)
    for size, counts in {0: [3], 1: [1, 1, 1], 2: [2, 1], 3: [3], 7: [3]}.items():
        parts = micro_batches(rows, size)
        assert [len(part.ids) for part in parts] == counts
        for whole, pieces in zip(rows, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(pieces), whole)
    stacked = to_stack([[SHORT, LONG], [OTHER]], pad=0, device=CPU, dtype=torch.float32)
    first, second = micro_batches(stacked, 1)
    assert first.ids.tolist() == [[[5, 6, 0, 0]], [[7, 8, 9, 0]]] and first.weight.tolist() == [[0.5], [1]]
    assert second.ids.tolist() == [[[1, 2, 3, 4]], [[0] * 4]] and second.weight.tolist() == [[0.5], [0]]


def test_lengths_are_padded_to_a_multiple() -> None:
    for multiple, length in {1: 4, 3: 6, 4: 4, 16: 16}.items():
        rows = to_rows([SHORT, LONG], pad=9, device=CPU, dtype=torch.float32, multiple=multiple)
        assert rows.ids.shape == rows.scored.shape == (2, length)
        assert rows.ids[:, 4:].eq(9).all() and rows.scored[:, 4:].eq(0).all() and rows.scored.sum() == 3
