"""Records that Flower carries give back what was put in, to the bit."""

import pytest
import torch

pytest.importorskip("flwr", reason="no Flower: make setup-flower")
from flwr.app import RecordDict

from fal.client import Global, Update
from fal.flower.messages import Card, Order, of_updates, refused, updates_in

pytestmark = pytest.mark.flower
CPU = torch.device("cpu")
WEIGHTS = {
    "b.weight": torch.tensor([[0.1, -0.0], [float("nan"), float("inf")]], dtype=torch.float64),
    "a.weight": torch.full((3, 1), 1 / 3),
    "a.half": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
}
COUNTS = {"bn.num_batches_tracked": torch.tensor(2**40 + 1)}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """Names in their order, types, shapes and bits."""
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    return list(found) == list(wanted) and all(
        own.dtype == w.dtype and torch.equal(own.view(bits[w.element_size()]), w.view(bits[w.element_size()]))
        for own, w in zip(found.values(), wanted.values(), strict=True)
    )


def test_an_order_comes_as_it_was_sent() -> None:
    sent = Order(7, [1, 3], Global(WEIGHTS, COUNTS, {}), {3: WEIGHTS})
    found = Order.of(sent.record(), CPU)
    assert (found.round, found.clients, found.start.variate, found.variates.keys()) == (7, [1, 3], {}, {3})
    assert same(found.start.weights, WEIGHTS) and same(found.start.buffers, COUNTS) and same(found.variates[3], WEIGHTS)


def test_updates_come_as_they_were_sent() -> None:
    sent = {
        2: Update(WEIGHTS, COUNTS, {}, 0.1, 1 / 3, 2.0**-1074, 12, 60),
        5: Update(WEIGHTS, {}, WEIGHTS, 0.0, 1.0, 2.0, 1, 1),
    }
    found = updates_in(of_updates(sent.items()), [2, 4, 5], CPU)
    assert found.keys() == sent.keys()
    for client, update in sent.items():
        assert all(same(getattr(found[client], key), getattr(update, key)) for key in ("delta", "buffers", "variate"))
        for key in ("loss_first", "loss_last", "adversarial_loss", "steps", "gradients"):
            assert getattr(found[client], key) == getattr(update, key)


def test_an_answer_without_updates_has_none_and_is_no_refusal() -> None:
    assert updates_in(RecordDict(), [0, 1], CPU) == {} and refused(RecordDict()) is None


def test_a_card_comes_as_it_was_sent() -> None:
    for card in (Card("a", "b", [0, 4]), Card("a", "b", [])):
        assert Card.of(card.record()) == card
