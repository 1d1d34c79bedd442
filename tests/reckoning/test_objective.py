"""The two losses: worked out by hand on the smallest model, and untouched by padding and stacking."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.weights import select, stack
from common.language.batch import Row, Rows, to_rows, to_stack
from common.language.objective import logits, mean_loss
from common.language.token_losses import TokenLosses
from tests.reckoning.miniature import make_network

CPU = torch.device("cpu")
ROWS = [Row((1, 2, 3, 4, 5), 2), Row((6, 7, 8), 1), Row((2, 9, 1, 4), 3)]


class Table(nn.Module):
    """Logits that depend on the last token alone: `table[token]`."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])

    def get_output_embeddings(self) -> Any:
        return SimpleNamespace(weight=self.table)


@pytest.fixture(scope="module")
def network() -> Any:
    return make_network(12, window=16).double().eval()


def rows_of(rows: list[Row], **more: Any) -> Rows:
    return to_rows(rows, pad=0, device=CPU, dtype=torch.float64, **more)


def test_the_token_mean_is_taken_inside_a_fact_and_then_the_fact_mean() -> None:
    # p(next | 0) = (1/2, 1/4, 1/4), p(next | 1) = (1/8, 1/8, 3/4), p(next | 2) uniform
    table = [[math.log(2), 0, 0], [0, 0, math.log(6)], [0, 0, 0]]
    model = Table(table)
    facts = [
        Row((0, 1, 2), 1),  # -log 1/4, -log 3/4
        Row((0, 0, 1, 1, 2), 2),  # given: 0 0; scored: -log 1/4, -log 1/8, -log 3/4
        Row((2, 0), 1),  # -log 1/3
    ]
    by_hand = (
        (math.log(4) + math.log(4 / 3)) / 2 + (math.log(4) + math.log(8) + math.log(4 / 3)) / 3 + math.log(3)
    ) / 3
    rows = to_rows(facts, pad=0, device=CPU, dtype=torch.float32)
    assert mean_loss(TokenLosses(model), select(model), rows).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_given_prefix_is_conditioned_on_and_not_scored(network: Any) -> None:
    scores = network(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.log_softmax(-1)[0]
    by_hand = -(scores[1, 3] + scores[2, 4] + scores[3, 5]) / 3
    loss = mean_loss(TokenLosses(network), select(network), rows_of([Row((1, 2, 3, 4, 5), 2)]))
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-12)
    other = mean_loss(TokenLosses(network), select(network), rows_of([Row((8, 2, 3, 4, 5), 2)]))
    assert other.item() != pytest.approx(by_hand.item(), rel=1e-6)


def test_padding_changes_no_number(network: Any) -> None:
    weights = select(network)
    together = mean_loss(TokenLosses(network), weights, rows_of(ROWS))
    alone = torch.stack([mean_loss(TokenLosses(network), weights, rows_of([row])) for row in ROWS]).mean()
    assert together.item() == pytest.approx(alone.item(), rel=1e-13)
    far = rows_of([*ROWS, Row(tuple(range(10)), 1)], shares=[1 / 3, 1 / 3, 1 / 3, 0.0])
    assert mean_loss(TokenLosses(network), weights, far).item() == pytest.approx(together.item(), rel=1e-13)


def test_a_stack_gives_every_task_the_loss_it_has_alone(network: Any) -> None:
    weights = select(network)
    tasks = [ROWS, ROWS[:1], ROWS[1:]]
    stacked = to_stack(tasks, pad=0, device=CPU, dtype=torch.float64)
    losses = mean_loss(TokenLosses(network), stack(weights, 3), stacked)
    alone = [mean_loss(TokenLosses(network), weights, rows_of(rows)).item() for rows in tasks]
    assert losses.tolist() == pytest.approx(alone, rel=1e-12)


def test_a_task_without_rows_loses_nothing(network: Any) -> None:
    stacked = to_stack([ROWS, []], pad=0, device=CPU, dtype=torch.float64)
    assert mean_loss(TokenLosses(network), stack(select(network), 2), stacked)[1].item() == 0


def test_kept_logits_are_the_last_ones(network: Any) -> None:
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    every = logits(network, select(network), ids)
    torch.testing.assert_close(logits(network, select(network), ids, keep=2), every[:, -2:], rtol=1e-12, atol=1e-12)
    stacked = logits(network, stack(select(network), 2), ids[:, None], keep=3)
    torch.testing.assert_close(stacked, every[:, None, -3:], rtol=1e-12, atol=1e-12)
    table = Table([[0.0, 1.0], [2.0, 3.0]])  # its forward knows no logits_to_keep
    assert logits(table, select(table), torch.tensor([[0, 1, 1]]), keep=2).tolist() == [[[2, 3], [2, 3]]]


def test_a_model_in_bfloat16_has_its_loss_in_float32() -> None:
    network = make_network(12, window=16).bfloat16().eval()
    loss = mean_loss(TokenLosses(network), select(network), to_rows(ROWS, pad=0, device=CPU, dtype=torch.bfloat16))
    assert loss.dtype is torch.float32


def test_rows_of_one_token_are_a_mistake_of_ours(network: Any) -> None:
    with pytest.raises(ValueError, match="nothing to predict"):
        mean_loss(TokenLosses(network), select(network), rows_of([Row((1,), 0)]))
