"""Rebuilt steps where a loss shares, lacks or reuses tensors, or none of its gradients exist; and what is refused."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from common.engine.derivatives import InnerLoss
from common.engine.inner import adapt
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW
from common.engine.settings import RateSpace, Snapshots, Unroll
from common.engine.weights import Weights

CLOSE = {"rtol": 1e-9, "atol": 1e-13}


def small(**start: Tensor) -> tuple[Weights, dict[str, Any]]:
    """Start weights, and the keywords of `adapt` that every call here shares."""
    return start, {"steps": 2, "rule": AdamW(), "rates": LearnedRates(list(start), steps=2, start=0.1).double()}


def vector(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, dtype=torch.double, generator=draw).requires_grad_()


def strategies(steps: int) -> list[dict[str, Any]]:
    """Every exact one."""
    rebuilt = itertools.product(range(steps + 1), Snapshots)
    return [
        {"unroll": Unroll.stored},
        {"unroll": Unroll.truncate, "keep": steps},
        *({"unroll": Unroll.recompute, "keep": keep, "snapshots": snapshots} for keep, snapshots in rebuilt),
    ]


def agree(loss: InnerLoss, start: Weights, how: dict[str, Any], inputs: Sequence[Tensor], **more: Any) -> list[Tensor]:
    """Gradients of a function of all adapted weights, the same by every strategy; those of the stored graph."""
    found = []
    for strategy in strategies(how["steps"]):
        fast = adapt(loss, start, **{**how, **more, **strategy}).weights
        total = torch.stack([w.sin().sum() for w in fast.values()]).sum()
        found.append(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], **CLOSE)
    return list(found[0])


def test_weights_that_share_one_gradient_tensor_are_added_up_apart() -> None:
    """Autograd hands a + b's gradient to both; micro-batches must not be added to it twice."""
    a, b = vector(0), vector(1)
    start, how = small(a=a, b=b)
    agree(lambda w, share: share * (w["a"] + w["b"]).pow(3).sum(), start, how, [a, b], parts=[0.25, 0.25, 0.5])
    agree(lambda w, share: share * (w["a"] + w["b"]).sum().square(), start, how, [a, b], parts=[0.25, 0.75])


def test_a_weight_that_the_loss_does_not_reach_only_decays_by_every_strategy() -> None:
    used, unused = vector(0), vector(1)
    start, how = small(used=used, unused=unused)
    found = agree(lambda w, _: w["used"].pow(4).sum(), start, how, [unused, how["rates"].numbers])
    kept = (1 - 0.1 * how["rule"].weight_decay) ** 2
    torch.testing.assert_close(found[0], kept * (kept * unused.detach()).cos())


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature_and_still_its_other_gradients() -> None:
    w, slope = vector(0), vector(1)
    start, how = small(w=w)
    agree(lambda w, _: (slope * w["w"]).sum(), start, how, [w, slope, how["rates"].numbers], also=[slope])
    constant = slope.detach()
    agree(lambda w, _: (constant * w["w"]).sum(), start, how, [w, how["rates"].numbers])


@pytest.mark.parametrize("leaf", [True, False])
def test_what_else_learns_may_be_a_leaf_or_computed(leaf: bool) -> None:
    w, root = vector(0), vector(1)
    other = root if leaf else root.exp()
    start, how = small(w=w)
    found = []
    for strategy in strategies(2):
        fast = adapt(lambda w, _: (other * w["w"].square()).sum(), start, **how, **strategy, also=[other]).weights
        found.append(torch.autograd.grad((fast["w"] * other).sum(), [w, root], retain_graph=True))
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], **CLOSE)


def test_what_else_learns_may_be_the_start_itself_as_in_a_proximal_term() -> None:
    w = vector(0)
    start, how = small(w=w)
    agree(lambda fast, _: fast["w"].pow(4).sum() + (fast["w"] - w).square().sum(), start, how, [w], also=[w])


def test_what_the_loss_reads_of_the_start_is_no_fast_weight_at_the_first_step_either() -> None:
    """The inner gradient of fast * start is start, not twice that, although both are one tensor then."""
    w, b = vector(0), vector(1)
    start = {"w": w, "made": w + b}
    how = {"steps": 2, "rule": SGD(), "rates": 0.1, "also": [w]}
    found = agree(lambda fast, _: (fast["w"] * w + fast["made"].pow(3)).sum(), start, how, [w, b])
    one = adapt(lambda fast, _: (fast["w"] * w).sum(), {"w": w}, **{**how, "steps": 1}).weights["w"]
    torch.testing.assert_close(one, 0.9 * w, **CLOSE)
    assert all(g.ne(0).all() for g in found)


def test_steps_beyond_those_of_the_rates_add_their_gradient_to_that_of_the_last() -> None:
    w = vector()
    start, how = small(w=w)
    found = agree(lambda w, _: w["w"].pow(4).sum(), start, {**how, "steps": 4}, [w, how["rates"].numbers])
    assert found[1].ne(0).all()


def test_rates_that_do_not_learn_and_a_start_that_does_not_still_pass_gradients_to_the_others() -> None:
    w, other = vector(0).detach(), vector(1)
    start, how = small(w=w)
    how["rates"].requires_grad_(False)
    found = agree(lambda w, _: (other * w["w"]).pow(4).sum(), start, how, [other], also=[other])
    assert found[0].ne(0).all()


@pytest.mark.parametrize("written", ["start", "what else learns", "rates"])
def test_what_is_written_to_before_the_backward_pass_is_noticed(written: str) -> None:
    w, other = vector(0), vector(1)
    start, how = small(w=w)
    loss = lambda w, _: (other * w["w"]).pow(4).sum()  # noqa: E731
    fast = adapt(loss, start, **how, unroll=Unroll.recompute, also=[other]).weights["w"].sum()
    with torch.no_grad():
        {"start": w, "what else learns": other, "rates": how["rates"].numbers}[written].add_(1)
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
        fast.backward()


def test_frozen_tensors_among_what_else_learns_are_passed_over() -> None:
    w, frozen = vector(0), vector(1).detach()
    start, how = small(w=w)
    agree(lambda w, _: (frozen * w["w"].square()).sum(), start, how, [w], also=[frozen])


def test_a_learning_tensor_that_is_not_named_is_refused_in_the_backward_pass() -> None:
    w, other, missing = vector(0), vector(1), torch.ones(2, 3, dtype=torch.double, requires_grad=True)
    start, how = small(w=w)
    fast = adapt(
        lambda w, _: (missing * other * w["w"].square()).sum(), start, **how, unroll=Unroll.recompute, also=[other]
    )
    text = (
        r"^the inner loss depends on a learning tensor of shape \[2, 3\] that is not a fast weight; "
        r"name it in adapt\(\.\.\., also=\[\.\.\.\]\), or freeze it with requires_grad_\(False\)$"
    )
    with pytest.raises(ValueError, match=text):
        fast.weights["w"].sum().backward()
    assert w.grad is other.grad is missing.grad is None


def test_a_rebuilt_step_has_no_further_derivative() -> None:
    """Of a constant cotangent too, where torch's own guard hands out a constant in silence."""
    w = vector()
    start, how = small(w=w)
    fast = adapt(lambda w, _: w["w"].pow(4).sum(), start, **how, unroll=Unroll.recompute).weights["w"]
    for of in (fast.sum(), fast.square().sum()):
        with pytest.raises(RuntimeError, match="no further derivative here: .* a rebuilt step have not"):
            torch.autograd.grad(of, [w], create_graph=True)


@pytest.mark.parametrize("snapshots", Snapshots)
def test_a_second_backward_pass_through_rebuilt_steps_is_refused(snapshots: Snapshots) -> None:
    w = vector()
    start, how = small(w=w)
    fast = adapt(lambda w, _: w["w"].pow(4).sum(), start, **how, unroll=Unroll.recompute, snapshots=snapshots)
    total = fast.weights["w"].sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass through rebuilt inner steps: the first one has used"):
        total.backward()


@pytest.mark.parametrize("strategy", strategies(2), ids=str)
def test_a_surrounding_no_grad_changes_nothing(strategy: dict[str, Any]) -> None:
    w, other = vector(0), vector(1)
    start, how = small(w=w)
    how["rates"] = LearnedRates(["w"], steps=2, start=0.1, space=RateSpace.exp).double()
    found = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            fast = adapt(lambda w, _: (other * w["w"]).pow(4).sum(), start, **how, **strategy, also=[other])
        found.append(torch.autograd.grad(fast.weights["w"].sum(), [w, other, how["rates"].numbers]))
    assert all(map(torch.equal, *found))


def test_truncation_to_nothing_reaches_the_start_under_no_grad() -> None:
    w = vector()
    start, how = small(w=w)
    with torch.no_grad():
        fast = adapt(lambda w, _: w["w"].pow(4).sum(), start, **how, unroll=Unroll.truncate, keep=0)
    assert torch.autograd.grad(fast.weights["w"].sum(), [w])[0].eq(1).all()
