"""Attention against eager attention: values, both derivatives, masks, caches, and what is kept for the derivatives."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from common.engine.twice import attention as implementation
from common.engine.twice.attention import attention, register
from common.engine.twice.policy import ATTENTION, Need, needed, needing

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
BLOCKS = {  # queries per block, entries per block, kept keys per entry of a key
    "one, kept": (64, 2**18, 100),
    "one, rebuilt": (64, 2**18, 0),
    "many, kept": (2, 1, 100),
    "many, rebuilt": (2, 40, 0),
}
# rows, heads, key heads, queries, keys, mask
CASES = {
    "causal": (3, 2, 2, 5, 5, "causal"),
    "causal with a cache": (2, 2, 2, 3, 7, "causal"),
    "causal, grouped": (2, 4, 2, 5, 5, "causal"),
    "causal, grouped, one query": (2, 4, 2, 1, 6, "causal"),
    "all to all": (2, 2, 2, 5, 4, None),
    "additive": (3, 4, 2, 5, 4, "additive"),
    "additive, shared by rows": (3, 4, 2, 5, 4, "shared"),
    "additive, by head": (2, 4, 2, 5, 4, "by head"),
    "boolean, a query without keys": (3, 2, 1, 5, 4, "boolean"),
}


class Layer(nn.Module):
    is_causal = True


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def inputs(rows: int, heads: int, key_heads: int, queries: int, keys: int) -> list[Tensor]:
    """Query, key and value, with different widths."""
    shapes = (rows, heads, queries, 3), (rows, key_heads, keys, 3), (rows, key_heads, keys, 4)
    return [numbers(*shape).requires_grad_() for shape in shapes]


def make_mask(kind: str | None, rows: int, heads: int, queries: int, keys: int) -> Tensor | None:
    match kind:
        case "additive":
            return numbers(rows, 1, queries, keys)
        case "shared":
            return numbers(1, 1, 1, keys)
        case "by head":
            return numbers(1, heads, queries, keys)
        case "boolean":
            mask = torch.rand(rows, 1, queries, keys) > 0.4
            mask[0, 0, 1] = False
            return mask
    return None


def eager(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """As transformers does it; [rows, queries, heads, value dim]."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
        scores = scores.masked_fill(~seen, -torch.inf)
    elif mask is not None and mask.dtype == torch.bool:
        scores = scores + torch.zeros_like(scores).masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return (torch.softmax(scores, -1) @ value).transpose(1, 2)


def derivatives(f: Callable[..., Tensor], tensors: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Output, its gradient from a random cotangent, and the gradient of that from random ones, to the cotangent too."""
    output = f(*tensors)
    torch.manual_seed(seed)
    cotangent = torch.randn(output.shape, dtype=output.dtype).requires_grad_()
    first = torch.autograd.grad(output, tensors, cotangent, create_graph=True)
    again = [torch.randn(g.shape, dtype=g.dtype) for g in first]
    return [output, *first, *torch.autograd.grad(first, [*tensors, cotangent], again)]


def assert_close(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or TIGHT))


def set_blocks(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for name, number in zip(("BLOCK_QUERIES", "BLOCK_ENTRIES", "KEPT_KEYS"), BLOCKS[kind], strict=True):
        monkeypatch.setattr(implementation, name, number)


def graph(output: Tensor) -> set[str]:
    """Names of the backward nodes behind `output`."""
    names, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None:
            names.add(type(node).__name__)
            todo.extend(before for before, _ in node.next_functions)
    return names


# ---- the function


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_both_derivatives_are_those_of_eager_attention(
    case: str, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, heads, key_heads, queries, keys, kind = CASES[case]
    tensors = inputs(rows, heads, key_heads, queries, keys)
    mask, causal = make_mask(kind, rows, heads, queries, keys), kind == "causal"
    set_blocks(monkeypatch, blocks)
    found = derivatives(lambda q, k, v: attention(Layer(), q, k, v, mask, is_causal=causal)[0], tensors)
    assert_close(found, derivatives(lambda q, k, v: eager(q, k, v, mask, causal), tensors))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("need", [Need.first, Need.plain])
def test_other_needs_give_the_same_values_and_gradients(case: str, need: Need) -> None:
    rows, heads, key_heads, queries, keys, kind = CASES[case]
    tensors = inputs(rows, heads, key_heads, queries, keys)
    mask, causal = make_mask(kind, rows, heads, queries, keys), kind == "causal"
    with needing(need):
        output, _ = attention(Layer(), *tensors, mask, is_causal=causal)
    expected = eager(*tensors, mask, causal)
    cotangent = torch.randn_like(output)
    found, first = (torch.autograd.grad(o, tensors, cotangent) for o in (output, expected))
    assert_close([output, *found], [expected, *first])


@pytest.mark.parametrize("blocks", ["one, kept", "many, rebuilt"])
def test_both_derivatives_match_finite_differences(blocks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, blocks)
    tensors = inputs(1, 2, 1, 3, 3)

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(Layer(), q, k, v, None, scaling=0.7)[0]

    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


def test_a_third_derivative_is_refused_unless_plain() -> None:
    tensors = inputs(1, 1, 1, 3, 3)

    def third() -> Tensor:
        y = attention(Layer(), *tensors, None)[0].pow(3).sum()
        for _ in range(2):
            y = torch.autograd.grad(y, tensors[0], create_graph=True)[0].pow(2).sum()
        return torch.autograd.grad(y, tensors[0])[0]

    with pytest.raises(NotImplementedError, match=r"no third derivative; with needing\(Need.plain\) it has"):
        third()
    with needing(Need.plain):
        assert third().isfinite().all()


@pytest.mark.parametrize("length", [32, 200])
def test_nothing_quadratic_in_the_sequence_is_kept(length: int) -> None:
    tensors = [numbers(2, 4, length, 8).requires_grad_() for _ in range(3)]
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        output = attention(Layer(), *tensors, None)[0]
        first = torch.autograd.grad(output, tensors, torch.ones_like(output), create_graph=True)
    assert max(sizes) <= 2 * 4 * length * 8
    forward, backward = 3, 4  # query, key, value; these and the cotangent
    assert sum(sizes) <= (forward + backward) * 2 * 4 * length * 8
    assert torch.autograd.grad(first, tensors, [torch.ones_like(x) for x in first])[0].isfinite().all()


def test_short_rows_keep_one_matrix_of_probabilities() -> None:
    tensors = [numbers(2, 4, 16, 8).requires_grad_() for _ in range(3)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        output = attention(Layer(), *tensors, None)[0]
        torch.autograd.grad(output, tensors, torch.ones_like(output), create_graph=True)
    assert len({x.data_ptr() for x in kept if x.shape[-2:] == (16, 16)}) == 1


def test_bfloat16_takes_softmax_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, "many, rebuilt")
    exact = [numbers(2, 2, 9, 8).requires_grad_() for _ in range(3)]
    low = [x.detach().bfloat16().requires_grad_() for x in exact]
    wide = [x.detach().float().requires_grad_() for x in low]

    def f(*x: Tensor) -> Tensor:
        return attention(Layer(), *x, None)[0]

    found = derivatives(f, low)
    assert {x.dtype for x in found} == {torch.bfloat16}
    with monkeypatch.context() as patch:  # the same random cotangents
        draw = torch.randn
        patch.setattr(torch, "randn", lambda shape, dtype: draw(shape, dtype=torch.bfloat16).to(dtype))
        expected = derivatives(f, wide)
    for a, b in zip(found, expected, strict=True):
        assert (a.float() - b).norm() < 0.02 * b.norm()


# ---- what runs


def test_the_need_chooses_the_kernel() -> None:
    tensors = [torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3)]
    for need, name in ((Need.first, "ScaledDotProduct"), (Need.second, "_Attention"), (Need.plain, "Softmax")):
        with needing(need):
            names = graph(attention(Layer(), *tensors, None)[0])
        ours = [n for n in names if any(kind in n for kind in ("ScaledDotProduct", "_Attention", "Softmax"))]
        assert len(ours) == 1 and name in ours[0]


def test_needs_nest_and_the_default_is_the_safe_one() -> None:
    assert needed() is Need.second
    with needing(Need.first):
        with pytest.raises(KeyError), needing(Need.plain):
            assert needed() is Need.plain
            raise KeyError
        assert needed() is Need.first
    assert needed() is Need.second


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own forward mode
def test_transforms_of_torch_func_take_plain_operations() -> None:
    tensors = [x.detach() for x in inputs(2, 2, 1, 4, 4)]

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(Layer(), q, k, v, None)[0]

    stacked = [torch.stack([x, 2 * x]) for x in tensors]
    expected = torch.stack([f(*tensors), f(*(2 * x for x in tensors))])
    torch.testing.assert_close(torch.vmap(f)(*stacked), expected, **TIGHT)
    value, tangent = torch.func.jvp(f, tuple(tensors), tuple(tensors))
    torch.testing.assert_close(value, f(*tensors), **TIGHT)
    h = 1e-6
    difference = (f(*((1 + h) * x for x in tensors)) - f(*((1 - h) * x for x in tensors))) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("need", [Need.second, Need.plain])
def test_both_derivatives_can_be_traced(need: Need) -> None:
    tensors = [x.detach() for x in inputs(2, 2, 1, 4, 4)]

    def second(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.requires_grad_()
        (first,) = torch.autograd.grad(attention(Layer(), q, k, v, None)[0].sin().sum(), q, create_graph=True)
        return torch.autograd.grad(first.sin().sum(), q)[0]

    with needing(need):
        traced = make_fx(second)(*tensors)
        expected = second(*tensors)
    torch.testing.assert_close(traced(*(x.detach() for x in tensors)), expected, **TIGHT)


def test_a_learned_mask_gets_its_gradient() -> None:
    tensors, bias = inputs(2, 2, 2, 4, 4), numbers(1, 2, 4, 4).requires_grad_()
    found, expected = (
        torch.autograd.grad(f.sin().sum(), bias)[0]
        for f in (attention(Layer(), *tensors, bias)[0], eager(*tensors, bias, False))
    )
    torch.testing.assert_close(found, expected, **TIGHT)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_what_it_does_not_do_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"attention 'twice' has no {name}: use attn_implementation='eager'"):
        attention(Layer(), *inputs(1, 1, 1, 2, 2), None, **{name: 1.0})


def test_causal_attention_to_fewer_keys_than_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="causal attention of 3 queries to 2 keys: pass a mask"):
        attention(Layer(), *inputs(1, 1, 1, 3, 2), None)


# ---- whole models


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
    monkeypatch.setattr(implementation, "_need", lambda mask, *_: masks.append(mask) or Need.second)
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
