"""Models of many families through `common.language.model.load`: each is right, or one message says what would help."""

import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.weights import select
from common.errors import UserError
from common.language import probe
from common.language.config import Attention, ModelConfig
from common.language.decode import continuations, greedy
from common.language.model import LanguageModel, load
from common.language.readers import CachedReader, WholeReader
from tests.reckoning.miniature import make_network

CPU = torch.device("cpu")
EOS = 1
COMMON = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": EOS, "initializer_range": 0.2}
PLAIN = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = {**PLAIN, "num_key_value_heads": 1}
OLD = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
FAIRSEQ = {"d_model": 16, "num_layers": 2, "decoder_layers": 2, "attention_heads": 2, "ffn_dim": 24, "init_std": 0.2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": OLD,
    "gpt_bigcode": OLD,
    "gptj": {**OLD, "rotary_dim": 4},
    "codegen": {**OLD, "n_head": 4, "rotary_dim": 4},
    "openai-gpt": OLD,
    "gpt_neox": PLAIN,
    "gpt_neo": {
        **{"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "window_size": 3},
        **{"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 32},
    },
    "gpt_neox_japanese": PLAIN,
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": False},
    "falcon alibi": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True},
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 32},
    "opt": {**PLAIN, "ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.2},
    "xglm": FAIRSEQ,
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 3},
    "qwen2": GROUPED,
    "qwen2 sliding": {**GROUPED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "mixtral": {**GROUPED, **EXPERTS},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8},
    "phi": PLAIN,
    "stablelm": GROUPED,
    "bert": {**PLAIN, "is_decoder": True},
    "bert encoder": PLAIN,
    "roformer encoder": {**PLAIN, "embedding_size": 16},
    "xlm": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 32},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": {**GROUPED, "lru_width": 16, "attention_window_size": 3},
    "rwkv": {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "intermediate_size": 24},
}
FUTURE = r"it sees the future: changing token 8 of 8 moves earlier scores by .*; "
REFUSED = {
    "bloom": f"{FUTURE}set model.attention=eager",
    "codegen": f"{FUTURE}set model.attention=eager",
    "gpt_neox_japanese": f"{FUTURE}set model.attention=eager",
    "xglm": f"{FUTURE}set model.attention=eager",
    "gpt_neo": "its layers know no attention 'twice'; set model.attention=eager",
    "gptj": "its layers know no attention 'twice'; set model.attention=eager",
    "falcon": "its layers know no attention 'twice'; set model.attention=eager",
    "falcon alibi": "its layers know no attention 'twice'; set model.attention=eager",
    "mpt": "it cannot read a row of 8 tokens .*; set model.attention=eager",
    "gemma2": "it cannot read a row of 8 tokens .*has no softcap.*; set model.attention=eager",
    "bert encoder": f'{FUTURE}set "is_decoder": true in its config.json$',
    "roformer encoder": f'{FUTURE}set "is_decoder": true in its config.json, and model.attention=eager',
    "xlm": f"{FUTURE}use another causal language model, such as gpt2",
}
HOPELESS = {"bert encoder", "roformer encoder", "xlm"}


def loaded(name: str, folder: Path, attention: Attention = Attention.twice, **more: Any) -> LanguageModel:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = CONFIG_MAPPING[name.partition(" ")[0]]
    settings = kind(**{**COMMON, **FAMILIES[name], **more}, architectures=[MODEL_FOR_CAUSAL_LM_MAPPING[kind].__name__])
    settings.save_pretrained(folder)
    torch.manual_seed(3)
    config = ModelConfig(name=str(folder), pretrained=False, attention=attention)
    model = load(config, 8, device=CPU, dtype=torch.float32)
    model.network.eval()
    return model


@torch.no_grad()
def scores(network: nn.Module, ids: Tensor) -> Tensor:
    return network(input_ids=ids, use_cache=False).logits


def answers(model: LanguageModel, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """Greedy, one row at a time, every row read from its start for every token."""
    found = []
    for prompt in prompts:
        row = list(prompt)
        while len(row) < len(prompt) + new_tokens:
            token = int(scores(model.network, torch.tensor([row]))[0, -1].argmax())
            if token == EOS:
                break
            row.append(token)
        found.append(row[len(prompt) :])
    return found


@pytest.mark.parametrize("attention", Attention)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_right_or_refused_in_one_message(name: str, attention: Attention, tmp_path: Path) -> None:
    if name in HOPELESS or (name in REFUSED and attention is Attention.twice):
        remedy = REFUSED[name] if attention is Attention.twice or name != "roformer encoder" else FUTURE
        with pytest.raises(UserError, match=f"model.name={tmp_path}: {remedy}"):
            loaded(name, tmp_path, attention)
        return
    model = loaded(name, tmp_path, attention)
    ids = torch.arange(3, 13)[None]
    before = scores(model.network, ids)
    for place in (9, 5):
        other = ids.clone()
        other[0, place:] = 40
        moved = (scores(model.network, other) - before).abs().amax((0, 2))
        assert moved[:place].max() < 2e-6 < 1e-3 < moved[place:].max()
    prompts = [[5, 6, 7, 8, 9, 10, 11], [4, 9], [12, 3, 5]]
    found = continuations(model, select(model.network), [prompts], eos=EOS, new_tokens=5, stacked=False)
    assert found == [answers(model, prompts, 5)]


def test_a_row_beyond_the_sliding_window_is_not_continued_from_a_cache(tmp_path: Path) -> None:
    model = loaded("mistral", tmp_path, sliding_window=9)
    assert model.continues == 9
    weights, how = select(model.network), {"eos": EOS, "new_tokens": 6, "stacked": False}
    prompts = [list(range(5, 19)), [4, 9]]
    assert continuations(model, weights, [prompts], **how) == [answers(model, prompts, 6)]
    reader = CachedReader(model.network, weights, model.window, stacked=False)
    cached = greedy(reader, [prompts], eos=EOS, new_tokens=6, window=model.window, device=CPU)
    assert cached != [answers(model, prompts, 6)], "the cache alone would see too far back"


def test_rows_read_whole_may_fill_the_window_and_be_stacked() -> None:
    networks = [make_network(40, window=12, seed=seed).double().eval() for seed in (1, 2)]
    weights = {
        name: torch.stack([dict(n.named_parameters())[name].detach() for n in networks]) for name in select(networks[0])
    }
    prompts = [[[5, 6, 7], [4] * 10], [[8], [9, 3]]]
    found = []
    for kind in (WholeReader, CachedReader):
        reader = kind(networks[0], weights, 12, stacked=True)
        found.append(greedy(reader, prompts, eos=0, new_tokens=9, window=12, device=CPU))
    assert found[0] == found[1]


def leaking(share: float) -> nn.Module:
    """A GPT-2 whose first block hands on `share` of the mean over the whole row."""
    network = make_network(40)
    network.transformer.h[0].register_forward_hook(lambda module, _, x: x + share * x.mean(1, keepdim=True))
    return network


@pytest.mark.parametrize(
    ("share", "dtype"),
    [(1.0, torch.float32), (1e-7, torch.float32), (1.0, torch.bfloat16), (1e-2, torch.bfloat16), (1e-9, torch.float64)],
)
def test_a_leak_below_rounding_is_found_by_its_derivative(share: float, dtype: torch.dtype) -> None:
    network = leaking(share).to(dtype)
    assert "sees the future" in str(probe.failure(network))
    assert probe.failure(leaking(0.0).to(dtype)) is None


def test_experts_in_other_groups_are_no_future(tmp_path: Path) -> None:
    network = loaded("mixtral", tmp_path).network
    for dtype in (torch.float32, torch.bfloat16):
        assert probe.failure(network.to(dtype)) is None


def test_nothing_is_changed_by_looking() -> None:
    network = make_network(40, dropout=0.3).train()
    network.transformer.h[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    assert probe.failure(network) is None and probe.continues(network, 12) > 0
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert modes == [module.training for module in network.modules()]
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = make_network(40)
    with torch.no_grad():
        network.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    assert "its scores are not finite" in str(probe.failure(network))


def test_a_model_whose_cache_does_not_serve_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert loaded("mpt", tmp_path, Attention.eager).continues == 0
    assert "its cache does not serve; rows are read again for each new token" in caplog.text
