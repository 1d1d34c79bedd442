"""`python -m perk.model`: sizes of model and memory, for every kind of method, with and without files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from common.engine.settings import Unroll
from common.language import sizes
from common.language.model import load, skeleton
from common.language.sizes import Shape, cost_of, estimate
from perk.config import TrainConfig
from perk.sizes import report, shape_of, step_of
from tests.runs import run_here

QA1 = ["+experiment=babilong_qa1", "scale=cpu"]
SHAPE = Shape(4, 8, 1, 8, "assumed here")


SETTINGS = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Words for a model of one layer, whose weights are nowhere."""
    folder = tmp_path_factory.mktemp("layer")
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    return f"model.name={folder}"


def lines_of(config: TrainConfig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in report(skeleton(config.network).train(), config, SHAPE).splitlines():
        name, _, text = line.strip().partition("  ")
        found.setdefault(name, []).append(text.strip())
    return found


def test_the_command_prints_and_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from perk.model import main

    (tmp_path / "mine").touch()
    assert run_here(main, *QA1, "method=test_time", f"loop.root={tmp_path / 'runs'}") == 0
    out = capsys.readouterr().out
    assert "371,328 in 83 tensors" in out and "0 segments of" in out and "the largest of 64 problems" in out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_perk_has_an_adapter_rates_and_token_weights(composed: Callable[..., Any]) -> None:
    config = composed(*QA1, "inner.stack=false")
    lines = lines_of(config)
    assert lines["adapter"][0].startswith("65,536 in 32 tensors: LoRA of rank 16")
    assert lines["fast weights"] == ["65,536 in 32 tensors, inner.weights=['*']"]
    assert lines["inner rates"] == ["128: one a tensor and step, start 0.01, exp"]
    assert lines["token weights"][0].startswith("8,449 in 4 tensors")
    plan, loop = lines["inner loop"]
    assert plan == "adamw, 4 steps, unroll=tgu, keep=2"
    assert loop.endswith("each problem goes backward before the next begins")
    assert lines["memory of one outer step"][0].startswith("estimate in float32; 4 segments of 8 tokens, 1 questions")


@pytest.mark.parametrize(
    "method, there, absent",
    [
        ("reckoning", {"fast weights", "inner rates", "inner loop"}, {"token weights", "adapter"}),
        ("test_time", {"fast weights", "inner rates", "outer loss", "adapter"}, {"inner loop", "token weights"}),
        ("ft_icr", {"outer loss"}, {"fast weights", "inner rates", "inner loop", "token weights"}),
        ("shortcuts", {"memory"}, {"fast weights", "in all"}),
    ],
)
def test_each_method_has_its_lines(
    composed: Callable[..., Any], layer: str, method: str, there: set[str], absent: set[str]
) -> None:
    lines = lines_of(composed(*QA1, layer, "model.digest=null", f"method={method}", "inner.stack=false"))
    assert there <= lines.keys() and not absent & lines.keys()


def test_token_weights_and_kept_steps_cost(composed: Callable[..., Any], layer: str) -> None:
    def total(*words: str) -> int:
        config = composed(*QA1, layer, "model.digest=null", "inner.stack=false", *words)
        return estimate(step_of(skeleton(config.network).train(), config, SHAPE)).loop

    own = total()
    assert own > total("method.token_weights=false")
    assert own > total("inner.keep=0")


@pytest.mark.parametrize(
    "words, rows, problems",
    [
        (["method=perk"], 4, 8),
        (["method=test_time"], 0, 8),
        (["method=test_time", "inner.stack=false"], 0, 1),
        (["method=ft_icr"], 4, 8),
        (["method=retrieval", "method.segments=3"], 3, 8),
        (["method=retrieval", "method.segments=9"], 4, 8),
    ],
)
def test_a_step_holds_what_the_method_reads(
    composed: Callable[..., Any], words: list[str], rows: int, problems: int
) -> None:
    step = step_of(nn.Linear(1, 1), composed(*QA1, "method.token_weights=false", *words), SHAPE)
    assert (step.shape.rows, step.problems) == (rows, problems)
    assert (step.inner is None) is (words != ["method=perk"])


def test_a_skeleton_costs_what_the_network_costs(composed: Callable[..., Any], layer: str) -> None:
    config = composed(*QA1, layer, "model.digest=null", "model.pretrained=false", "inner.stack=false")
    loaded = load(config.network, 1, device=torch.device("cpu"), dtype=torch.float32).network.train()
    costs = [cost_of(step_of(each, config, SHAPE)) for each in (skeleton(config.network).train(), loaded)]
    assert costs[0] == costs[1] and costs[0].others == 4 * (16 * 128 + 128 + 128 + 1)


@pytest.mark.parametrize("words", [[], ["inner.micro_batch=1"], ["inner.unroll=stored", "inner.keep=0"]], ids=" ".join)
def test_the_cost_of_many_segments_is_carried_on_from_few(
    composed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, layer: str, words: list[str]
) -> None:
    config = composed(*QA1, layer, "model.digest=null", "inner.stack=false", *words)
    step = step_of(skeleton(config.network).train(), config, replace(SHAPE, rows=5, row_tokens=8))
    counted = estimate(step).total
    monkeypatch.setattr(sizes, "COUNTED", 0)
    assert estimate(step).total == pytest.approx(counted, rel=0.05)


def test_remedies_keep_the_numbers_that_they_say_they_keep(
    composed: Callable[..., Any], layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "estimate", lambda step: SimpleNamespace(total=0))

    def words(*given: str) -> list[str]:
        config = composed(*QA1, layer, "model.digest=null", *given)
        step = step_of(skeleton(config.network).train(), config, SHAPE)
        return [text.rpartition(": ")[0] for text in sizes.remedies(step, 10**12)[:-1]]

    alone = "inner.stack=false inner.micro_batch=1"
    assert words() == [
        "inner.stack=false (the same numbers)",
        f"{alone} (the same numbers)",
        "inner.stack=false inner.unroll=first_order inner.keep=0 inner.micro_batch=1 (no step exactly)",
    ]
    assert words("inner.stack=false", "inner.unroll=first_order", "inner.keep=0") == [
        "inner.micro_batch=1 (the same numbers)"
    ]


def test_sizes_without_files_follow_the_settings(composed: Callable[..., Any], layer: str) -> None:
    config = composed("+experiment=babilong_qa1", layer, "model.lora.rank=2", "runtime=cpu")
    shape = shape_of(config)
    assert (shape.rows, shape.row_tokens) == (32, 264) and "as the data are not there" in shape.source
    step = step_of(skeleton(config.network).train(), config, shape)
    assert estimate(step).unroll is Unroll.tgu
