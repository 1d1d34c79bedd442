"""Whole models of transformers with our attention against their eager one: losses, derivatives, masks, caches."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.twice.policy import Need, needing
from common.language import attention as implementation
from common.language.attention import ATTENTION, attention, register
from tests.common.engine.twice.checks import TIGHT, assert_close, numbers, set_blocks


@pytest.fixture(autouse=True)
def softmax_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention of GPT-NeoX and Qwen2 asks for float32 whatever the weights are; its rounding hides errors."""
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))


COMMON = {"vocab_size": 13, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": None}


def gpt2(implementation: str, **changes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 24}
    return GPT2LMHeadModel(GPT2Config(**{**COMMON, **sizes, **changes}, attn_implementation=implementation))


def gpt_neox(implementation: str) -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**COMMON, **sizes, attn_implementation=implementation))


def qwen2(implementation: str, **changes: Any) -> nn.Module:
    """Four heads, two key heads."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16, "max_position_embeddings": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**COMMON, **sizes, **heads, **changes, attn_implementation=implementation))


def qwen2_sliding(implementation: str) -> nn.Module:
    return qwen2(implementation, use_sliding_window=True, sliding_window=3, max_window_layers=1)


MODELS: dict[str, Callable[[str], nn.Module]] = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "qwen2": qwen2,
    "qwen2_sliding": qwen2_sliding,
}


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Two models with the same weights: ours and eager."""
    yield make_pair(MODELS[request.param])


def make_pair(make: Callable[[str], nn.Module]) -> tuple[nn.Module, nn.Module]:
    register()
    ours, reference = (make(name).double().eval() for name in (ATTENTION, "eager"))
    ours.load_state_dict(reference.state_dict())
    return ours, reference


def padding(side: str) -> Tensor:
    """Rows of 6, 4 and 5 tokens."""
    mask = torch.arange(6) < torch.tensor([[6], [4], [5]])
    return (mask.flip(1) if side == "left" else mask).long()


def loss_derivatives(model: nn.Module, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Logits where there is a token, the loss, its gradient, and a Hessian-vector product."""
    seen = torch.ones_like(ids) if mask is None or mask.dim() == 4 else mask
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    loss = (logits.log_softmax(-1)[..., 0] * seen).sum()
    weights = list(model.parameters())
    torch.manual_seed(3)
    first = torch.autograd.grad(loss, weights, create_graph=True)
    return [logits[seen.bool()], *first, *torch.autograd.grad(first, weights, [torch.randn_like(w) for w in weights])]


MASKS: dict[str, Callable[[], Tensor | None]] = {
    "none": lambda: None,
    "right": lambda: padding("right"),
    "left": lambda: padding("left"),
    "4-D": lambda: numbers(3, 1, 6, 6),
}


@pytest.mark.parametrize("mask", MASKS)
def test_models_have_the_loss_gradient_and_hessian_of_eager(pair: tuple[nn.Module, nn.Module], mask: str) -> None:
    ours, reference = pair
    ids, given = torch.randint(13, (3, 6)), MASKS[mask]()
    assert_close(loss_derivatives(ours, ids, given), loss_derivatives(reference, ids, given), rtol=1e-8, atol=1e-9)


def test_blocks_do_not_change_a_model(pair: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = torch.randint(13, (3, 6)), padding("left")
    expected = loss_derivatives(pair[0], ids, mask)
    set_blocks(monkeypatch, "many, rebuilt")
    assert_close(loss_derivatives(pair[0], ids, mask), expected, rtol=1e-8, atol=1e-9)


def test_a_causal_model_without_padding_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = make_pair(gpt2)
    masks: list[Tensor | None] = []
    attend = implementation.attend
    monkeypatch.setattr(implementation, "attend", lambda *args, **how: masks.append(args[3]) or attend(*args, **how))
    ours(torch.randint(13, (2, 5)))
    ours(torch.randint(13, (2, 5)), attention_mask=torch.ones(2, 5, dtype=torch.long))
    assert masks == [None] * 4


def test_a_boolean_4d_mask_is_the_additive_one() -> None:
    ours, reference = make_pair(gpt2)
    ids, seen = torch.randint(13, (3, 6)), torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    found = ours(input_ids=ids, attention_mask=seen).logits
    torch.testing.assert_close(found, reference(input_ids=ids).logits, **TIGHT)


@pytest.mark.parametrize("need", Need)
def test_generation_with_a_cache_is_that_of_eager(pair: tuple[nn.Module, nn.Module], need: Need) -> None:
    ids, mask = torch.randint(13, (3, 6)), padding("left")
    with needing(need):
        found, expected = (
            m.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=6,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=0,
            )
            for m in pair
        )
    assert torch.equal(found.sequences, expected.sequences)
    assert_close(list(found.logits), list(expected.logits), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_can_be_filled_in_parts(pair: tuple[nn.Module, nn.Module], kind: str) -> None:
    from transformers import DynamicCache, StaticCache

    ours, reference = pair
    ids = torch.randint(13, (2, 9))
    cache = DynamicCache(config=ours.config) if kind == "dynamic" else StaticCache(config=ours.config, max_cache_len=12)
    parts = [ours(input_ids=part, past_key_values=cache).logits for part in ids.split([4, 3, 1, 1], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), reference(input_ids=ids).logits, rtol=1e-9, atol=1e-10)


def test_dropout_is_that_of_eager() -> None:
    ours, reference = make_pair(lambda name: gpt2(name, attn_pdrop=0.5, resid_pdrop=0.0, embd_pdrop=0.0))
    ids = torch.randint(13, (3, 6))
    outputs = []
    for model in (ours.train(), reference.train()):
        torch.manual_seed(5)
        outputs.append(model(input_ids=ids).logits)
    torch.testing.assert_close(*outputs, **TIGHT)
    assert not torch.allclose(outputs[0], ours.eval()(input_ids=ids).logits)


def test_attention_weights_come_when_asked_for(pair: tuple[nn.Module, nn.Module]) -> None:
    ids = torch.randint(13, (3, 6))
    found, expected = (model(input_ids=ids, output_attentions=True).attentions for model in pair)
    assert_close(list(found), list(expected))


def test_registering_again_changes_nothing() -> None:
    from transformers import AttentionInterface

    register()
    before = AttentionInterface()[ATTENTION]
    register()
    assert AttentionInterface()[ATTENTION] is before


@pytest.mark.parametrize("name", implementation.UNKNOWN)
def test_what_it_does_not_do_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"attention 'twice' has no {name}: use attn_implementation='eager'"):
        attention(nn.Module(), *(numbers(1, 1, 2, 3) for _ in range(3)), None, **{name: 1.0})
