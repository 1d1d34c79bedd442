"""A kept context answers as if it were read again for every question, and as greedy decoding of the whole prompt."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from common.engine.weights import select
from common.language.context import KeptContext, cache_bytes
from common.language.decode import continuations
from common.language.model import LanguageModel

VOCABULARY, CONTEXT, NEW = 40, 23, 7


def network_of(kind: str) -> Any:
    torch.manual_seed(1)
    ends: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.8}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **ends)).double().eval()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(num_key_value_heads=1, max_position_embeddings=64, **sizes, **ends)
    return Qwen2ForCausalLM(config).double().eval()


@pytest.fixture(params=["gpt2", "qwen2"])
def network(request: pytest.FixtureRequest) -> Any:
    return network_of(request.param)


@pytest.fixture
def questions() -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def context() -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (CONTEXT,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("room", [0, 5 + NEW])
def test_answers_are_those_of_the_whole_prompt(
    network: Any, context: torch.Tensor, questions: torch.Tensor, room: int
) -> None:
    weights = select(network)
    kept = KeptContext(network, weights, context)
    prompts = [[*context.tolist(), *question.tolist()] for question in questions]
    (expected,) = continuations(LanguageModel(network, 64), weights, [prompts], eos=-1, new_tokens=NEW, stacked=False)
    assert len({tuple(said) for said in expected}) == len(questions)
    reading = kept.read(room)
    for _ in range(2):  # a reading serves any number of times
        assert [kept.answer(reading, question, NEW) for question in questions] == expected
        with torch.no_grad():
            whole = [network(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in prompts]
        scores = kept.one_by_one(reading, questions)
        torch.testing.assert_close(scores, torch.stack(whole), rtol=1e-9, atol=1e-9)


def test_space_for_more_tokens_holds_no_bytes_and_is_used_in_place(
    network: Any, context: torch.Tensor, questions: torch.Tensor
) -> None:
    kept = KeptContext(network, select(network), context)
    plain, spacious = kept.read(), kept.read(5 + NEW)
    heads = 1 if "Qwen2" in type(network).__name__ else 2
    assert cache_bytes(plain) == cache_bytes(spacious) == 2 * 2 * CONTEXT * heads * 8 * 8
    place = spacious.layers[0].keys.data_ptr()
    kept.answer(spacious, questions[0], NEW)
    assert spacious.layers[0].keys.data_ptr() == place
    assert spacious.get_seq_length() == CONTEXT
    with pytest.raises(ValueError, match="read with more room"):
        kept.answer(spacious, questions[0], NEW + 2)
