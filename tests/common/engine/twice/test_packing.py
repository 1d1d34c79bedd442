"""Packed rows against the same rows padded: logits, loss, gradient and Hessian; and what packing refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.twice.attention import attention, register
from common.engine.twice.packing import Packed, pack
from common.engine.twice.policy import ATTENTION, Need, needing

LENGTHS = {
    "all different": [3, 5, 1, 4],
    "some alike": [4, 2, 4, 2, 4],
    "all alike": [3, 3, 3],
    "one row": [6],
}


class Layer(nn.Module):
    is_causal = True


def rows_of(lengths: list[int]) -> list[list[int]]:
    return [torch.randint(13, (length,)).tolist() for length in lengths]


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 13, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 8}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **ends, initializer_range=0.4, attn_implementation=ATTENTION))


def qwen2(**changes: Any) -> nn.Module:
    """Four heads, two key heads."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": 13, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(**sizes, **heads, **changes, initializer_range=0.4, attn_implementation=ATTENTION)
    return Qwen2ForCausalLM(config)


def qwen2_sliding() -> nn.Module:
    return qwen2(use_sliding_window=True, sliding_window=2, max_window_layers=1)


MODELS = {"gpt2": gpt2, "qwen2": qwen2, "qwen2_sliding": qwen2_sliding}


def make(name: str) -> nn.Module:
    register()
    return MODELS[name]().double().eval()


def packed_logits(model: nn.Module, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Logits [tokens, vocabulary], and the summed loss of the next tokens."""
    packed = pack(rows)
    logits = model(**packed.inputs(model), use_cache=False).logits[0]
    within = packed.row[1:] == packed.row[:-1]
    loss = nn.functional.cross_entropy(logits[:-1][within], packed.ids[0, 1:][within], reduction="sum")
    return logits, loss


def padded_logits(model: nn.Module, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The same from one padded batch."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    loss = nn.functional.cross_entropy(logits[:, :-1][mask[:, 1:]], ids[:, 1:][mask[:, 1:]], reduction="sum")
    return logits[mask], loss


def derivatives(
    f: Callable[[nn.Module, list[list[int]]], tuple[Tensor, Tensor]], model: nn.Module, rows: list[list[int]]
) -> list[Tensor]:
    """Logits, loss, its gradient, and a Hessian-vector product."""
    logits, loss = f(model, rows)
    weights = list(model.parameters())
    first = torch.autograd.grad(loss, weights, create_graph=True)
    torch.manual_seed(1)
    return [logits, loss, *first, *torch.autograd.grad(first, weights, [torch.randn_like(w) for w in weights])]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_give_what_padded_rows_give(name: str, lengths: str) -> None:
    model, rows = make(name), rows_of(LENGTHS[lengths])
    found, expected = (derivatives(f, model, rows) for f in (packed_logits, padded_logits))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("need", Need)
def test_every_need_stays_within_segments(need: Need) -> None:
    model, rows = make("gpt2"), rows_of([3, 5, 3])
    with needing(need), torch.no_grad():
        before, _ = packed_logits(model, rows)
        changed, _ = packed_logits(model, [[(token + 1) % 13 for token in rows[0]], rows[1], rows[2]])
    assert torch.equal(before[3:], changed[3:])
    assert not torch.isclose(before[:3], changed[:3]).any()


def test_no_mask_is_made_and_segments_of_one_length_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.engine.twice import attention as implementation

    calls: list[tuple[torch.Size, Tensor | None]] = []
    kernel = implementation._twice
    monkeypatch.setattr(
        implementation,
        "_twice",
        lambda q, k, v, mask, causal: calls.append((q.shape, mask)) or kernel(q, k, v, mask, causal),
    )
    model = make("gpt2")
    packed_logits(model, rows_of([4, 2, 4, 2, 4]))
    assert calls == 2 * [((2, 2, 2, 4), None), ((3, 2, 4, 4), None)]


def test_a_full_mask_holds_within_segments() -> None:
    """Models make one of [tokens, tokens] where nobody passes the padding mask."""
    model, rows = make("gpt2"), rows_of([3, 5, 3])
    packed = pack(rows)
    inputs = {name: value for name, value in packed.inputs(model).items() if name != "attention_mask"}
    torch.testing.assert_close(model(**inputs, use_cache=False).logits[0], padded_logits(model, rows)[0])


def test_pack_lays_rows_end_to_end() -> None:
    packed = pack([[5, 6, 7], [8], [9, 10]])
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9, 10]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert packed.row.tolist() == [0, 0, 0, 1, 2, 2]
    assert packed.cu_seq_lens.tolist() == [0, 3, 4, 6]
    assert packed.cu_seq_lens.dtype == torch.int32


def test_ends_stay_on_the_cpu() -> None:
    packed = pack([[1, 2], [3]], device="meta")
    devices = [x.device.type for x in (packed.ids, packed.position_ids, packed.row, packed.cu_seq_lens)]
    assert devices == ["meta", "meta", "meta", "cpu"]


@pytest.mark.parametrize(("rows", "lengths"), [([], r"\[\]"), ([[1], [], [2]], r"\[1, 0, 1\]")])
def test_nothing_to_pack_is_refused(rows: list[list[int]], lengths: str) -> None:
    with pytest.raises(ValueError, match=f"cannot pack rows of lengths {lengths}: each needs a token"):
        pack(rows)


def test_a_model_that_would_look_across_segments_is_refused() -> None:
    model = make("gpt2")
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="attn_implementation='eager' does not know packed rows: use 'twice'"):
        pack([[1, 2], [3]]).inputs(model)


@pytest.mark.parametrize(("rows", "tokens", "keys"), [(2, 4, 4), (1, 5, 5), (1, 4, 6)])
def test_segments_that_do_not_cover_one_row_are_refused(rows: int, tokens: int, keys: int) -> None:
    packed: Packed = pack([[1, 2], [3, 4]])
    query, key = torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, keys, 4)
    text = rf"segments from 0 to 4 do not cover {rows} row\(s\) of {tokens} queries and {keys} keys"
    with pytest.raises(ValueError, match=text):
        attention(Layer(), query, key, key, None, cu_seq_lens_q=packed.cu_seq_lens)
