"""What has no inner gradient is one message in every unroll."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.settings import Unroll
from common.engine.weights import Weights, call, select
from common.errors import UserError

X = torch.ones(3, 4)
NET = nn.Linear(4, 4)
START = select(NET)


def loss(weights: Weights, _: Any) -> Tensor:
    return call(NET, weights, X).square().mean()


def refused(message: str, loss: Any, start: Any, parts: Any = (None,)) -> None:
    for unroll in Unroll:
        for rule in (SGD(), AdamW()):
            with pytest.raises(UserError, match=message):
                adapt(loss, start, parts, steps=2, rule=rule, rates=0.1, unroll=unroll, keep=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: torch.ones(4, dtype=torch.int64), r"bias has type torch.int64.*inner\.weights"),
        (lambda w: torch.ones(4, dtype=torch.bool), "bias has type torch.bool"),
        (lambda w: w.detach().to(torch.complex64), "bias is complex.*view_as_real"),
        (lambda w: w.detach().to_sparse(), "bias is torch.sparse_coo"),
        (lambda w: w.detach().to("meta"), "bias is on the meta device"),
        (lambda w: [1.0], "bias is a list"),
    ],
)
def test_a_weight_without_a_gradient_is_named(change: Callable[[Tensor], Any], message: str) -> None:
    refused(message, loss, {**START, "bias": change(START["bias"])})


def test_no_weights_and_inference_mode_are_told() -> None:
    refused("no weights", loss, {})
    with torch.inference_mode():
        made = {name: w.clone() for name, w in START.items()}
        refused("inference_mode.*no_grad", loss, START)
    refused("weight was made inside torch.inference_mode", loss, made)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts is empty"),
        (lambda step: [], "parts is empty"),
        ((part for part in [None]), "parts=generator"),
        (lambda step: iter([None]), "parts=list_iterator"),
        ({1: None}, "parts=dict"),
        (None, "parts=NoneType"),
    ],
)
def test_micro_batches_are_a_sequence_and_not_empty(parts: Any, message: str) -> None:
    refused(message, loss, START, parts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w, _: None, "the inner loss is a NoneType"),
        (lambda w, _: 1.0, "the inner loss is a float"),
        (lambda w, _: (loss(w, None),), "the inner loss is a tuple"),
        (lambda w, _: loss(w, None).long(), "the inner loss is of type torch.int64"),
        (lambda w, _: loss(w, None) * 1j, "the inner loss is of type torch.complex64"),
        (lambda w, _: loss(w, None).detach(), r"the inner loss has no graph.*detached"),
        (lambda w, _: call(NET, w, X), r"the shape \[3, 4\]"),
        (lambda w, _: NET(X).mean(), r"none of the fast weights.*call\(network"),
        (lambda w, _: loss(w, None).item(), "the inner loss is a float"),
    ],
)
def test_a_loss_without_a_gradient_is_told(wrong: Any, message: str) -> None:
    refused(message, wrong, START)


def test_a_sparse_embedding_is_told() -> None:
    net = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 1))
    refused("sparse gradient.*sparse=False", lambda w, _: call(net, w, torch.arange(3)).mean(), select(net))


@pytest.mark.parametrize("rule", [SGD(), AdamW()])
def test_a_frozen_weight_adapts_and_has_no_outer_gradient(rule: UpdateRule) -> None:
    net = nn.Linear(4, 4).requires_grad_(False)
    net.bias.requires_grad_()
    start = select(net)
    for unroll in (Unroll.stored, Unroll.recompute):
        found = adapt(lambda w, _: call(net, w, X).square().mean(), start, steps=2, rule=rule, rates=0.1, unroll=unroll)
        assert not found.weights["weight"].equal(start["weight"])
        torch.autograd.grad(found.weights["weight"].sum(), start["bias"])


@pytest.mark.parametrize("parts", ["ab", torch.tensor(1.0)])
def test_a_text_and_a_number_are_no_micro_batches(parts: Any) -> None:
    with pytest.raises(UserError, match="give them as a list"):
        adapt(lambda w, _: w["w"].sum(), {"w": torch.ones(2)}, parts, steps=1, rule=SGD(), rates=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 2.0}, r"inner\.steps=2\.0: use a whole number"),
        ({"steps": True}, r"inner\.steps=True: use a whole number"),
        ({"keep": 1.0}, r"inner\.keep=1\.0: use a whole number"),
        ({"rates": math.nan}, "the inner rate is nan: use a finite number"),
        ({"rates": math.inf}, "the inner rate is inf"),
        ({"rates": "0.1"}, "the inner rate is '0.1'"),
        ({"rates": None}, "the inner rate is None"),
        ({"rates": {"weight": 0.1, "bias": math.nan}}, "the inner rate of bias is nan"),
    ],
)
def test_steps_are_whole_and_rates_finite(change: dict[str, Any], message: str) -> None:
    for unroll in Unroll:
        with pytest.raises(UserError, match=message):
            adapt(loss, START, **{"steps": 2, "rule": SGD(), "rates": 0.1, "keep": 1, "unroll": unroll, **change})
    with pytest.raises(ValueError, match="a rate of nan"):
        LearnedRates(["weight"], steps=1, start=math.nan)


def test_a_lazy_layer_is_told() -> None:
    with pytest.raises(UserError, match="fast weight weight has no shape yet"):
        adapt(lambda w, _: w["weight"].sum(), select(nn.LazyLinear(2)), steps=1, rule=SGD(), rates=0.1)
