"""Attention against eager attention: values, both derivatives, masks, and what is kept for the derivatives."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from common.engine.twice.attention import attend
from common.engine.twice.policy import Need, needed, needing
from tests.common.engine.twice.checks import BLOCKS, TIGHT, assert_close, derivatives, graph, numbers, set_blocks

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
    """Written out; [rows, heads, queries, value dim]."""
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
    return torch.softmax(scores, -1) @ value


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
    found = derivatives(lambda q, k, v: attend(q, k, v, mask, causal=causal)[0], tensors)
    assert_close(found, derivatives(lambda q, k, v: eager(q, k, v, mask, causal), tensors))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("need", [Need.first, Need.plain])
def test_other_needs_give_the_same_values_and_gradients(case: str, need: Need) -> None:
    rows, heads, key_heads, queries, keys, kind = CASES[case]
    tensors = inputs(rows, heads, key_heads, queries, keys)
    mask, causal = make_mask(kind, rows, heads, queries, keys), kind == "causal"
    with needing(need):
        output, _ = attend(*tensors, mask, causal=causal)
    expected = eager(*tensors, mask, causal)
    cotangent = torch.randn_like(output)
    found, first = (torch.autograd.grad(o, tensors, cotangent) for o in (output, expected))
    assert_close([output, *found], [expected, *first])


@pytest.mark.parametrize("blocks", ["one, kept", "many, rebuilt"])
def test_both_derivatives_match_finite_differences(blocks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, blocks)
    tensors = inputs(1, 2, 1, 3, 3)

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, causal=True, scaling=0.7)[0]

    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


def test_a_third_derivative_is_refused_unless_plain() -> None:
    tensors = inputs(1, 1, 1, 3, 3)

    def third() -> Tensor:
        y = attend(*tensors, causal=True)[0].pow(3).sum()
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
        output = attend(*tensors, causal=True)[0]
        first = torch.autograd.grad(output, tensors, torch.ones_like(output), create_graph=True)
    assert max(sizes) <= 2 * 4 * length * 8
    forward, backward = 3, 4  # query, key, value; these and the cotangent
    assert sum(sizes) <= (forward + backward) * 2 * 4 * length * 8
    assert torch.autograd.grad(first, tensors, [torch.ones_like(x) for x in first])[0].isfinite().all()


def test_short_rows_keep_one_matrix_of_probabilities() -> None:
    tensors = [numbers(2, 4, 16, 8).requires_grad_() for _ in range(3)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        output = attend(*tensors, causal=True)[0]
        torch.autograd.grad(output, tensors, torch.ones_like(output), create_graph=True)
    assert len({x.data_ptr() for x in kept if x.shape[-2:] == (16, 16)}) == 1


def test_bfloat16_takes_softmax_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, "many, rebuilt")
    exact = [numbers(2, 2, 9, 8).requires_grad_() for _ in range(3)]
    low = [x.detach().bfloat16().requires_grad_() for x in exact]
    wide = [x.detach().float().requires_grad_() for x in low]

    def f(*x: Tensor) -> Tensor:
        return attend(*x, causal=True)[0]

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
            names = graph(attend(*tensors, causal=True)[0])
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
        return attend(q, k, v, causal=True)[0]

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
        (first,) = torch.autograd.grad(attend(q, k, v, causal=True)[0].sin().sum(), q, create_graph=True)
        return torch.autograd.grad(first.sin().sum(), q)[0]

    with needing(need):
        traced = make_fx(second)(*tensors)
        expected = second(*tensors)
    torch.testing.assert_close(traced(*(x.detach() for x in tensors)), expected, **TIGHT)


def test_a_learned_mask_gets_its_gradient() -> None:
    tensors, bias = inputs(2, 2, 2, 4, 4), numbers(1, 2, 4, 4).requires_grad_()
    found, expected = (
        torch.autograd.grad(f.sin().sum(), bias)[0] for f in (attend(*tensors, bias)[0], eager(*tensors, bias, False))
    )
    torch.testing.assert_close(found, expected, **TIGHT)


def test_causal_attention_to_fewer_keys_than_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="causal attention of 3 queries to 2 keys: pass a mask"):
        attend(*inputs(1, 1, 1, 3, 2), causal=True)
