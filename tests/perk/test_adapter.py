"""The memory's adapter: which layers it is attached to, and when contexts are stacked."""

from typing import Any

import pytest
import torch

from common.language.config import ModelConfig as Plain
from common.language.model import load
from perk.config import AdapterConfig, ModelConfig

FOUR = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def adapted(**lora: Any) -> list[str]:
    """Names of the layers of tiny_stories that got an adapter."""
    settings = ModelConfig(name="tiny_stories", lora=AdapterConfig(rank=2, **lora))
    network = load(settings, 1652, device=torch.device("cpu"), dtype=torch.float32).network
    return [name.removesuffix(".lora_A") for name, _ in network.named_modules() if name.endswith(".lora_A")]


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_all_linear_layers_of_the_last_blocks_get_one(layers: int) -> None:
    found = adapted(top_layers=layers)
    assert {name.rpartition(".")[2] for name in found} == set(FOUR)
    numbers = {int(name.partition("layers.")[2].partition(".")[0]) for name in found}
    assert numbers == set(range(4 - layers, 4) if layers else range(4))
    assert len(found) == 4 * (layers or 4)


def test_named_layers_of_the_last_blocks_get_one() -> None:
    assert len(adapted(top_layers=2, targets=["dense"])) == 2


def test_the_base_stays_as_it_was_loaded() -> None:
    plain = load(Plain(name="tiny_stories"), 1652, device=torch.device("cpu"), dtype=torch.float32).network
    settings = ModelConfig(name="tiny_stories", lora=AdapterConfig(rank=2, top_layers=1))
    adapted = load(settings, 1652, device=torch.device("cpu"), dtype=torch.float32).network
    there = {name.replace(".base_layer.", "."): weight for name, weight in adapted.named_parameters()}
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, there[name]) and not there[name].requires_grad
