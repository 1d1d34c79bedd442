"""Learned inner rates: where they start, who shares one, and what happens beyond the last step."""

import pytest
import torch

from common.engine.inner import adapt
from common.engine.rates import LearnedRates, layer_of, make_rates, rates_of
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.settings import InnerConfig, RateGroup, RateSpace, Unroll

NAMES = [
    "transformer.wte.weight",
    "transformer.h.0.attn.weight",
    "transformer.h.0.attn.bias",
    "transformer.h.1.attn.weight",
    "transformer.ln_f.weight",
    "transformer.ln_f.bias",
]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("transformer.h.3.mlp.c_fc.weight", "transformer.h.3"),
        ("transformer.h.13.ln_1.bias", "transformer.h.13"),
        ("gpt_neox.layers.0.attention.query_key_value.weight", "gpt_neox.layers.0"),
        ("model.layers.2.experts.7.weight", "model.layers.2"),
        ("transformer.wte.weight", "transformer.wte"),
        ("0.weight", "0"),
        ("conv1.weight", "conv1"),
        ("scale", "scale"),
    ],
)
def test_the_layer_of_a_parameter_is_its_outermost_numbered_block_or_its_module(name: str, layer: str) -> None:
    assert layer_of(name) == layer


@pytest.mark.parametrize("space", RateSpace)
@pytest.mark.parametrize("start", [1e-5, 3e-5, 0.1, 1.0, 30.0])
def test_every_rate_begins_at_the_start_value_in_every_space(space: RateSpace, start: float) -> None:
    rates = LearnedRates(NAMES, steps=3, start=start, space=space)
    assert rates.numbers.shape == (6, 3)
    torch.testing.assert_close(rates.rates(), torch.full((6, 3), start), rtol=1e-5, atol=0.0)


def test_raw_rates_may_begin_at_zero_and_below_but_positive_spaces_refuse_that() -> None:
    assert LearnedRates(NAMES, steps=1, start=0.0).rates().eq(0).all()
    assert LearnedRates(NAMES, steps=1, start=-0.5).rates().eq(-0.5).all()
    for space in (RateSpace.exp, RateSpace.softplus):
        with pytest.raises(
            ValueError, match=f"a rate of 0.0 cannot be expressed in {space} space: it must be positive"
        ):
            LearnedRates(NAMES, steps=1, start=0.0, space=space)


@pytest.mark.parametrize("space", [RateSpace.exp, RateSpace.softplus])
def test_positive_spaces_stay_positive_whatever_the_numbers(space: RateSpace) -> None:
    rates = LearnedRates(NAMES, steps=2, start=0.1, space=space)
    with torch.no_grad():
        rates.numbers.uniform_(-30, 30)
    assert (rates.rates() > 0).all()


def test_each_tensor_and_step_has_its_own_rate_or_each_layer_and_step() -> None:
    per_tensor = LearnedRates(NAMES, steps=2, start=0.1)
    assert per_tensor.groups == NAMES
    per_layer = LearnedRates(NAMES, steps=2, start=0.1, per=RateGroup.layer)
    assert per_layer.groups == ["transformer.wte", "transformer.h.0", "transformer.h.1", "transformer.ln_f"]
    for rates, rows in ((per_tensor, [0, 1, 2, 3, 4, 5]), (per_layer, [0, 1, 1, 2, 3, 3])):
        with torch.no_grad():
            rates.numbers.copy_(torch.arange(rates.numbers.numel()).view_as(rates.numbers))
        for step in (0, 1):
            found = rates(step)
            assert list(found) == NAMES and all(rate.shape == () for rate in found.values())
            assert [rate.item() for rate in found.values()] == [2 * row + step for row in rows]


def test_a_shared_rate_gets_the_gradient_of_all_its_tensors() -> None:
    rates = LearnedRates(NAMES, steps=2, start=0.1, per=RateGroup.layer)
    sum(rates(1).values()).backward()
    assert rates.numbers.grad is not None
    assert rates.numbers.grad.tolist() == [[0, 1], [0, 2], [0, 1], [0, 2]]


def test_steps_beyond_the_last_reuse_the_last_rate() -> None:
    rates = LearnedRates(NAMES, steps=2, start=0.1)
    with torch.no_grad():
        rates.numbers[:, 1] = 0.7
    assert rates(2) == rates(1) == rates(99)


def test_static_rates_ask_for_no_gradient() -> None:
    assert not LearnedRates(NAMES, steps=2, start=0.1, learned=False).numbers.requires_grad


def test_the_summary_shows_the_spread_and_the_share_below_zero() -> None:
    rates = LearnedRates(NAMES[:4], steps=1, start=0.1)
    with torch.no_grad():
        rates.numbers.copy_(torch.tensor([[-1.0], [0.0], [0.5], [2.0]]))
    assert rates.summary() == {"min": -1.0, "median": 0.0, "max": 2.0, "negative_share": 0.25}


def test_the_settings_make_the_rates() -> None:
    config = InnerConfig(steps=3, lr=0.2, learned=False, space=RateSpace.exp, per=RateGroup.layer)
    rates = make_rates(config, NAMES)
    assert rates.numbers.shape == (4, 3) and not rates.numbers.requires_grad and rates.space is RateSpace.exp
    torch.testing.assert_close(rates.rates(), torch.full((4, 3), 0.2))


def test_a_plain_number_is_the_rate_of_every_weight_and_is_not_rounded() -> None:
    rates = rates_of(0.1, ["a", "b"])
    for step in (0, 5):
        assert {name: rate.item() for name, rate in rates(step).items()} == {"a": 0.1, "b": 0.1}
        assert all(rate.shape == () and not rate.requires_grad for rate in rates(step).values())
        assert rates.table()("b", step) == 0.1
    assert rates.rates().shape == (2, rates.steps) and rates.row == {"a": 0, "b": 1}


def test_plain_numbers_are_given_by_name_and_none_may_lack() -> None:
    rates = rates_of({"b": 0.2, "a": 1, "unused": 3.0}, ["a", "b"])
    assert (rates.table()("a", 0), rates.table()("b", 0)) == (1, 0.2) and rates(0)["a"].item() == 1.0
    with pytest.raises(
        ValueError, match=r"no inner rate for \['c'\]: make the rates from the names of the start weights"
    ):
        rates_of({"a": 0.1}, ["a", "c"])
    learned = LearnedRates(NAMES, steps=1, start=0.1)
    assert rates_of(learned, NAMES[:2]) is learned


@pytest.mark.parametrize("unroll", sorted(set(Unroll) - {Unroll.auto}))
@pytest.mark.parametrize("rule", [SGD(), AdamW(eps=1e-3)], ids=repr)
def test_plain_rates_take_the_steps_of_learned_ones_of_the_same_value(rule: UpdateRule, unroll: Unroll) -> None:
    start = {"a": torch.randn(3, requires_grad=True), "b": torch.randn(3, requires_grad=True)}
    learned = LearnedRates(list(start), steps=1, start=0.125)  # exact in any precision
    found = []
    for rates in (learned, 0.125, {"a": 0.125, "b": 0.125}):
        fast = adapt(
            lambda w, _: (w["a"] * w["b"]).sin().sum(), start, steps=3, rule=rule, rates=rates, unroll=unroll
        ).weights
        outer = torch.stack([w.sum() for w in fast.values()]).sum()
        of = torch.autograd.grad(outer, list(start.values())) if unroll is not Unroll.none else ()
        found.append([*fast.values(), *of])
    for plain in found[1:]:
        assert all(map(torch.equal, plain, found[0]))
