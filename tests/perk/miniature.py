"""Models, contexts and runs of PERK small enough for tests, written as a user would bring their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.engine.settings import InnerConfig
from common.engine.weights import Weights
from perk.build import Parts, build
from perk.config import AdapterConfig, EvaluationConfig, MethodConfig, ModelConfig, TrainConfig
from perk.methods import Perk
from perk.problems import Problem, Question
from tests.learners import losses_of
from tests.reckoning.miniature import make_tokenizer

KINDS = ("gpt2", "llama", "qwen2")
WINDOW = 80
TEXTS = (
    "Mary went to the kitchen. Rain fell all day. John took the milk there.",
    "Daniel moved to the garden. The old house was cold and the door stood open.",
    "Then Mary went to the hallway. Nobody spoke. Sandra had left the football in the office, so she went back.",
    "A dog slept.",
    "John went to the garden. It was late.",
)
"""Segments of unequal length."""
WORDS = "doc_0 doc_1 doc_2 doc_3 doc_4: 0 1 2 3 4 5 documents have been memorised.\nQuestion: Where was is?\nAnswer:"


def problems() -> list[Problem]:
    """Three contexts of five, three and two segments; two questions about the first."""
    asked = [
        Question("a/0", "Where is Mary?", ("hallway",), "qa1", ("Mary went to the hallway.",), (2,)),
        Question("a/1", "Where is John?", ("garden",), "qa1", ("John went to the garden.",), (4,)),
        Question("b/0", "Where was the milk?", ("kitchen",), "qa1", ("John took the milk there.",), (0,)),
        Question("c/0", "Where is the football?", ("office",), "qa1"),
    ]
    contexts = (TEXTS, TEXTS[:3], (TEXTS[2], TEXTS[3]))
    questions = (tuple(asked[:2]), (asked[2],), (asked[3],))
    return [Problem(name, *given, (), 0) for name, *given in zip("abc", contexts, questions, strict=True)]


def tokenizer() -> Any:
    """Words and signs of the texts above."""
    return make_tokenizer(" ".join((*TEXTS, WORDS, "<support> </support> <answer> </answer>")))


def settings_of(kind: str, vocabulary: int) -> Any:
    """Two layers of width 8, two heads; weights large enough that no derivative is small."""
    import transformers as hf

    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.3, "vocab_size": vocabulary}
    if kind == "gpt2":
        drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return hf.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=WINDOW, **drop, **ends)
    if kind == "mamba":
        return hf.MambaConfig(hidden_size=8, num_hidden_layers=2, state_size=4, pad_token_id=0, **ends)
    more: dict[str, Any] = {"num_key_value_heads": 1, "max_position_embeddings": WINDOW, "pad_token_id": 0}
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {"llama": hf.LlamaConfig, "qwen2": hf.Qwen2Config}[kind](**sizes, **more, **ends)


def write_model(folder: Path, kind: str) -> Path:
    """Settings of a model, and in a folder below its tokenizer (beside them some models would take it for theirs)."""
    words = tokenizer()
    words.save_pretrained(folder / "words")
    settings_of(kind, len(words)).save_pretrained(folder)
    return folder


def parts_of(
    folder: Path,
    *,
    method: MethodConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    lora: AdapterConfig | None = None,
    seed: int = 0,
    fresh: bool = False,
    **inner: Any,
) -> Parts:
    """Model, rates, weigher and learner in float64, the same for the same arguments.

    Adapter and weigher get random numbers, and each rate its own, unless `fresh`: at their published start most
    derivatives are zero.
    """
    adapter = lora or AdapterConfig(rank=2, alpha=2, dropout=0.0)
    config = TrainConfig(
        model=ModelConfig(name=str(folder), tokenizer=str(folder / "words"), pretrained=False, lora=adapter),
        method=method or MethodConfig(),
        inner=InnerConfig(**{"steps": 4, "lr": 0.02, "beta2": 0.95, **inner}),
        evaluation=evaluation or EvaluationConfig(max_new_tokens=6),
    )
    torch.manual_seed(seed)
    parts = build(config, torch.device("cpu"), torch.float64)
    if not fresh:
        draw = torch.Generator().manual_seed(seed)
        learns = [p for p in parts.learner.learns.parameters() if p.requires_grad]
        with torch.no_grad():
            for parameter in learns if config.method.adapter else []:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
            if parts.rates is not None:
                spread = torch.rand(parts.rates.numbers.shape, generator=draw, dtype=torch.float64)
                parts.rates.numbers.mul_(1 + 0.2 * spread)
    return parts


def perk_of(parts: Parts) -> Perk:
    """The learner, which has an inner loop."""
    assert isinstance(parts.learner, Perk)
    return parts.learner


def written(parts: Parts, problem: Problem, micro_batch: int = 0) -> Weights:
    """The adapter that holds a context, its segments read in groups of `micro_batch`."""
    learner = perk_of(parts)
    learner.micro_batch = micro_batch
    return learner.memorise([problem], training=False)


def close(found: Weights, expected: Weights, name: str = "") -> None:
    """Every tensor up to 1e-11 of its largest entry."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = float(value.detach().abs().max())
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-11 * scale + 1e-15, msg=f"{name} {key}")


def meta_gradient(parts: Parts, batch: Sequence[Problem]) -> tuple[float, dict[str, torch.Tensor]]:
    """Summed outer loss, and its gradient by all that learns: adapter, weigher (`weigher.*`) and rates (`rates`)."""
    named = dict(parts.model.network.named_parameters())
    if parts.weigher is not None:
        named |= {f"weigher.{name}": value for name, value in parts.weigher.named_parameters()}
    if parts.rates is not None:
        named["rates"] = parts.rates.numbers
    for value in named.values():
        value.grad = None
    total = 0.0
    for loss in losses_of(parts.learner, batch):
        assert loss.shape == ()
        loss.backward()
        total += loss.item()
    learning = {name: value for name, value in named.items() if value.requires_grad}
    return total, {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone() for name, value in learning.items()
    }
