"""YaRN stretches rotary positions when a split is measured, and at no other time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from common.errors import UserError
from perk.build import Parts, build
from perk.config import EvaluationConfig, Learner, MethodConfig, ModelConfig, Target, TrainConfig
from perk.evaluate import respond
from perk.problems import Problem, Question
from tests.learners import losses_of
from tests.reckoning.miniature import make_tokenizer

OWN, FACTOR = 32, 4.0
TEXTS = tuple(f"Mary went to the kitchen. It rained on day {day}." for day in "abcdef")
SHAPE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": OWN, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "initializer_range": 0.3,
}  # fmt: skip
PROBLEM = Problem("a", TEXTS, (Question("a/0", "Where is Mary?", ("kitchen",), "qa1"),), (), 0)


@pytest.fixture(params=["qwen2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model's configuration by hand, and its words."""
    words = make_tokenizer(" ".join((*TEXTS, "Question: Where is Mary? Answer:")))
    words.save_pretrained(tmp_path / "words")
    kind = {"qwen2": Qwen2Config, "llama": LlamaConfig}[request.param]
    kind(vocab_size=len(words), **SHAPE).save_pretrained(tmp_path)
    return tmp_path


def config_of(folder: Path, **model: Any) -> TrainConfig:
    method = MethodConfig(learner=Learner.in_context, target=Target.answer, adapter=False, token_weights=False)
    settings = ModelConfig(name=str(folder), tokenizer=str(folder / "words"), pretrained=False, **model)
    return TrainConfig(model=settings, method=method, evaluation=EvaluationConfig(max_new_tokens=3))


def built(config: TrainConfig) -> Parts:
    torch.manual_seed(0)
    return build(config, torch.device("cpu"), torch.float32)


def logits(parts: Parts, length: int) -> Tensor:
    ids = torch.arange(length)[None] % parts.model.network.config.vocab_size  # type: ignore[operator]
    with torch.no_grad():
        found: Tensor = parts.model.network(input_ids=ids, use_cache=False).logits
    return found


def of_transformers(folder: Path, parts: Parts, length: int) -> Tensor:
    """The logits of a model that `transformers` itself stretches, with the same weights."""
    path = folder / "stretched"
    parts.model.network.save_pretrained(path)  # type: ignore[operator]
    settings = json.loads((path / "config.json").read_text())
    assert settings["rope_parameters"]["rope_type"] == "default", "what is exported has the positions of training"
    more = {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": OWN}
    settings["rope_parameters"] |= more
    settings["max_position_embeddings"] = round(OWN * FACTOR)
    (path / "config.json").write_text(json.dumps(settings))
    network = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    with torch.no_grad():
        found: Tensor = network(input_ids=torch.arange(length)[None] % network.config.vocab_size).logits
    return found


def test_inside_the_block_positions_are_those_that_transformers_stretches(folder: Path) -> None:
    plain, parts = built(config_of(folder)), built(config_of(folder, yarn=FACTOR))
    parts.model.network.eval()
    assert parts.stretch is not None and plain.stretch is None
    assert (parts.model.window, parts.templates.window) == (OWN, OWN)
    for length in (8, 3 * OWN):
        with parts.stretch.applied():
            assert (parts.model.window, parts.templates.window) == (4 * OWN, 4 * OWN)
            stretched = logits(parts, length)
        torch.testing.assert_close(stretched, of_transformers(folder, parts, length), rtol=1e-4, atol=1e-4)
        assert (stretched - logits(plain, length)).abs().max() > 1e-3
        torch.testing.assert_close(logits(parts, length), logits(plain, length), rtol=0, atol=0)
    assert (parts.model.window, parts.templates.window) == (OWN, OWN)


def test_positions_come_back_after_an_error(folder: Path) -> None:
    parts = built(config_of(folder, yarn=FACTOR))
    assert parts.stretch is not None
    before = logits(parts, OWN)
    with pytest.raises(RuntimeError, match="lost"), parts.stretch.applied():
        raise RuntimeError("lost")
    torch.testing.assert_close(logits(parts, OWN), before, rtol=0, atol=0)
    assert parts.model.window == parts.templates.window == OWN


def test_training_and_selection_know_nothing_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loss as without; a measured prompt is not cut, one for selection is."""
    plain, config = built(config_of(folder)), config_of(folder, yarn=FACTOR)
    parts = built(config)
    (expected,), (found,) = losses_of(plain.learner, [PROBLEM]), losses_of(parts.learner, [PROBLEM])
    assert found.item() == expected.item()

    def of(config: TrainConfig, *, select: bool) -> tuple[int, str]:
        parts = built(config)
        lengths: list[int] = []
        start = parts.learner.templates.in_context

        def noted(*args: Any) -> Any:
            row, cut = start(*args)
            lengths.append(len(row.prompt))
            return row, cut

        monkeypatch.setattr(parts.learner.templates, "in_context", noted)
        (item,) = respond(parts, [PROBLEM], config, select=select)
        return lengths[0], item.more["response"]

    alone, selected = of(config_of(folder), select=True), of(config, select=True)
    assert selected == alone and selected[0] < OWN
    whole, _ = of(config, select=False)
    assert OWN < whole < FACTOR * OWN


def test_a_window_of_ones_own_goes_with_the_factor(folder: Path) -> None:
    parts = built(config_of(folder, yarn=FACTOR, positions=100))
    assert parts.model.window == OWN and parts.stretch is not None and parts.stretch.window == 100
    assert built(config_of(folder, positions=100)).model.window == 100, "without YaRN it is the model's at all times"


def test_what_has_no_rotary_positions_says_so_before_training(tmp_path: Path) -> None:
    words = make_tokenizer(" ".join(TEXTS))
    words.save_pretrained(tmp_path / "words")
    GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=2, n_positions=OWN).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model.positions=0, model.yarn=4.0: .* has no rotary positions; use 0"):
        built(config_of(tmp_path, yarn=FACTOR))
    with pytest.raises(UserError, match="model.positions=100, model.yarn=0.0: .* has no rotary positions; use 0"):
        built(config_of(tmp_path, positions=100))


def test_perk_refuses_it() -> None:
    with pytest.raises(UserError, match="model.yarn=4.0 with method.learner=perk: it reads segments"):
        TrainConfig(model=ModelConfig(yarn=FACTOR))
