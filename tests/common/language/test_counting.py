"""The memory of a step, counted on few layers and carried on, against all layers counted."""

import logging
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from common.engine import footprint
from common.engine.settings import InnerConfig, RuleName, Unroll
from common.language import counting, sizes
from common.language.adapter import fast_weights
from common.language.blocks import blocks_of
from common.language.config import LoraConfig, ModelConfig
from common.language.counting import Shape, Step, count
from common.language.model import skeleton

COMMON = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_head": 2, "n_positions": 64}
SHAPE = Shape(3, 12, 1, 20, "assumed here")
CASES: dict[str, tuple[str, dict[str, Any], ModelConfig, InnerConfig]] = {
    "gpt2": ("gpt2", {**GPT2, "n_layer": 9, "vocab_size": 64}, ModelConfig(), InnerConfig()),
    "large vocabulary": ("gpt2", {**GPT2, "n_layer": 9, "vocab_size": 9000}, ModelConfig(), InnerConfig()),
    "llama": ("llama", {**LLAMA, "num_hidden_layers": 9, "vocab_size": 3000}, ModelConfig(), InnerConfig()),
    "stacked": ("llama", {**LLAMA, "num_hidden_layers": 7, "vocab_size": 64}, ModelConfig(), InnerConfig(stack=True)),
    "micro-batches": (
        "llama", {**LLAMA, "num_hidden_layers": 7, "vocab_size": 64}, ModelConfig(), InnerConfig(micro_batch=1)
    ),
    "sgd, some weights": (
        "gpt2", {**GPT2, "n_layer": 8, "vocab_size": 64}, ModelConfig(),
        InnerConfig(rule=RuleName.sgd, weights=["*.mlp.*"]),
    ),
    "last layers": (
        "gpt2", {**GPT2, "n_layer": 8, "vocab_size": 64}, ModelConfig(),
        InnerConfig(weights=["*.h.5.*", "*.h.6.*", "*.h.7.*"]),
    ),
    "lora of all, micro-batches": (
        "llama", {**LLAMA, "num_hidden_layers": 9, "vocab_size": 5000},
        ModelConfig(lora=LoraConfig(rank=16, targets=["all-linear"])), InnerConfig(micro_batch=1),
    ),
    "lora": (
        "llama", {**LLAMA, "num_hidden_layers": 8, "vocab_size": 64},
        ModelConfig(lora=LoraConfig(rank=4, targets=["q_proj", "up_proj"])), InnerConfig(),
    ),
}  # fmt: skip

ONE = {"gpt2", "large vocabulary", "llama", "stacked", "micro-batches", "lora of all, micro-batches"}
"""Whose first layer is like the others."""


def step_of(case: str, folder: Path) -> Step:
    from transformers import AutoConfig

    kind, settings, config, inner = CASES[case]
    AutoConfig.for_model(kind, **COMMON, **settings).save_pretrained(folder)
    network = skeleton(replace(config, name=str(folder))).train()
    return Step(network, SHAPE, 3, inner, torch.device("cpu"))


@pytest.mark.parametrize("case", CASES)
def test_few_layers_carried_on_cost_what_all_cost(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_of(case, tmp_path)
    start = fast_weights(step.network, (step.inner or InnerConfig()).weights)
    expected = counting._counted(step, start).footprint()
    read, whole = [], counting._counted

    def watched(given: Step, *more: Any) -> Any:
        read.append(len(getattr(blocks.owner, blocks.name)))
        return whole(given, *more)

    blocks: Any = blocks_of(step.network, start)
    names = [name for name, _ in step.network.named_parameters()]
    monkeypatch.setattr(counting, "_counted", watched)
    found = count(step)
    assert max(read) <= (2 if case in ONE else 6) < 7 <= sum(map(len, blocks.kinds)), "too many layers were counted"
    assert [name for name, _ in step.network.named_parameters()] == names
    assert astuple(found) == pytest.approx(astuple(expected), rel=0.01, abs=2000)


def test_layers_of_another_course_are_counted_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_of("gpt2", tmp_path)
    expected = counting._counted(step, fast_weights(step.network, ["*"])).footprint()

    def refuse(*_: Any) -> None:
        raise ValueError("another course")

    monkeypatch.setattr(counting, "carried_on", refuse)
    assert count(step) == expected


def test_what_was_counted_is_not_counted_again_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, counted = step_of("stacked", tmp_path), []
    monkeypatch.setattr(sizes, "count", lambda given: counted.append(given) or count(given))
    with caplog.at_level(logging.INFO):
        assert len(sizes.remedies(step, 10**12)) == 4
    assert len(counted) == 2, "one problem; micro-batches: few of few"
    assert "counting the memory of one problem: 3 rows, 1 at a time" in caplog.text


def test_what_a_micro_batch_costs_alone_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, counted = step_of("micro-batches", tmp_path), []
    course = footprint.course_of
    monkeypatch.setattr(footprint, "course_of", lambda *given: counted.append(given) or course(*given))
    few, more = (replace(step, shape=replace(step.shape, rows=rows)) for rows in (2, 3))
    first = count(few)
    assert len(counted) == 6, "gradient, product and outer loss, with one layer and with two"
    second = count(more)
    assert len(counted) == 6
    assert second == count(replace(more, counted={}, courses={})), "what is counted afresh"
    assert (first.first, first.product, first.outer) == (second.first, second.product, second.outer)


def test_what_rebuilding_takes_is_counted_where_steps_are_rebuilt_alone(tmp_path: Path) -> None:
    exact = step_of("lora", tmp_path)
    cut = replace(exact, inner=replace(CASES["lora"][3], unroll=Unroll.tgu, keep=1), counted={}, courses={})
    whole, part = sizes.cost_of(exact), sizes.cost_of(cut)
    assert whole.product and part == replace(whole, product=0)
    assert not any(name == "product" for courses in cut.courses.values() for name, *_ in courses)
    with pytest.raises(ValueError, match="counted without the rebuilding of a step"):
        part.peak(Unroll.recompute, 4, 0)
    again = replace(exact, inner=cut.inner)
    assert sizes.cost_of(again) is whole, "counted with more is counted"
    assert sizes.cost_of(replace(cut, inner=exact.inner)) == whole, "counted with less is not enough"


def test_the_shapes_of_an_adapter_are_made_without_its_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(weight: torch.Tensor, **_: Any) -> None:
        assert isinstance(weight, FakeTensor), "numbers were made"

    from transformers import AutoConfig

    kind, settings, config, _ = CASES["lora"]
    AutoConfig.for_model(kind, **COMMON, **settings).save_pretrained(tmp_path)
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", refuse)
    network = skeleton(replace(config, name=str(tmp_path)))
    assert any("lora_A" in name for name, _ in network.named_parameters())
    assert torch.nn.init.kaiming_uniform_ is refuse
