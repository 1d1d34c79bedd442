"""Attention layers of diffusers with our processor against their own: values, both derivatives, and what runs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.engine.twice.policy import Need, needing
from common.engine.twice.processor import TwiceAttnProcessor, make_attention_twice
from common.engine.weights import select
from common.errors import UserError
from tests.common.engine.twice.checks import TIGHT, assert_close, derivatives, graph, numbers
from tests.common.engine.unet import clip, generated, video_rows, video_unet

SIZES = {"query_dim": 8, "heads": 2, "dim_head": 3}
LAYERS: dict[str, dict[str, Any]] = {
    "to itself": {},
    "to a text": {"cross_attention_dim": 5},
    "with biases, residual and rescaled": {"bias": True, "residual_connection": True, "rescale_output_factor": 1.5},
    "with a group norm": {"norm_num_groups": 2, "residual_connection": True},
    "with a norm of the text": {"cross_attention_dim": 5, "cross_attention_norm": "layer_norm"},
    "with a group norm of the text": {
        "cross_attention_dim": 5, "cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 1,
    },
    "with norms of queries and keys": {"qk_norm": "layer_norm"},
    "with a spatial norm": {"spatial_norm_dim": 32},
    "of another width": {"out_dim": 12},
}  # fmt: skip
CASES = [(name, mask) for name in LAYERS for mask in ("none", "by row", "by head")]


def layer(name: str, **more: Any) -> nn.Module:
    from diffusers.models.attention_processor import Attention

    sizes = {**SIZES, **({"query_dim": 32} if "spatial" in name else {}), **LAYERS[name], **more}
    return Attention(**sizes).double().eval()


def given(attn: nn.Module, images: bool = False) -> dict[str, Tensor]:
    """Three rows of four places, and a text of five tokens where the layer reads one."""
    channels = attn.query_dim
    found = {"hidden_states": numbers(3, channels, 2, 2) if images else numbers(3, 4, channels)}
    if attn.is_cross_attention:
        found["encoder_hidden_states"] = numbers(3, 5, attn.cross_attention_dim)
    if attn.spatial_norm is not None:
        found["temb"] = numbers(3, 32, 2, 2)
    return {key: value.requires_grad_() for key, value in found.items()}


def mask_of(kind: str, attn: nn.Module) -> Tensor | None:
    keys = 5 if attn.is_cross_attention else 4
    return {"none": None, "by row": numbers(3, 1, keys), "by head": numbers(3 * attn.heads, 4, keys)}[kind]


def answers(attn: nn.Module, given: dict[str, Tensor], mask: Tensor | None) -> list[Tensor]:
    """Output and both derivatives, in the inputs and the weights."""
    weights = dict(attn.named_parameters())
    tensors = list(given.values())

    def f(*x: Tensor) -> Tensor:
        named = dict(zip(given, x[: len(given)], strict=True))
        return torch.func.functional_call(
            attn, dict(zip(weights, x[len(given) :], strict=True)), kwargs={**named, "attention_mask": mask}
        )

    return derivatives(f, [*tensors, *weights.values()])


@pytest.mark.parametrize(("name", "mask"), CASES)
def test_values_and_both_derivatives_are_those_of_plain_operations(name: str, mask: str) -> None:
    attn = layer(name)
    inputs, added = given(attn, images="spatial" in name), mask_of(mask, attn)
    with sdpa_kernel(SDPBackend.MATH):
        expected = answers(attn, inputs, added)
    attn.set_processor(TwiceAttnProcessor())
    assert_close(answers(attn, inputs, added), expected)


@pytest.mark.parametrize("name", ["to itself", "to a text", "with a group norm"])
def test_images_are_read_place_by_place(name: str) -> None:
    attn = layer(name)
    inputs = given(attn, images=True)
    with sdpa_kernel(SDPBackend.MATH):
        expected = answers(attn, inputs, None)
    attn.set_processor(TwiceAttnProcessor())
    assert_close(answers(attn, inputs, None), expected)


def test_unscaled_scores_stay_unscaled() -> None:
    attn = layer("to itself", scale_qk=False)
    inputs = given(attn)
    expected = answers(attn, inputs, None)
    attn.set_processor(TwiceAttnProcessor())
    assert_close(answers(attn, inputs, None), expected)


def test_dropout_is_drawn_as_by_their_own() -> None:
    attn, outputs = layer("to itself", dropout=0.5).train(), []
    inputs = given(attn)
    ours = copy.deepcopy(attn)
    ours.set_processor(TwiceAttnProcessor())
    for each in (attn, ours):
        torch.manual_seed(3)
        outputs.append(each(**inputs))
    torch.testing.assert_close(*outputs, **TIGHT)
    assert not torch.allclose(outputs[0], ours.eval()(**inputs))


# ---- a whole network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_unet_without_second_derivative_gives_the_bits_of_their_own_processors(dtype: torch.dtype) -> None:
    unet, x = video_unet().to(dtype), clip(2).to(dtype)
    ours = make_attention_twice(copy.deepcopy(unet))
    with torch.no_grad(), needing(Need.first):
        assert torch.equal(generated(ours, {}, x), generated(unet, {}, x))


def test_a_unet_has_the_gradient_and_hessian_of_plain_attention() -> None:
    from diffusers.models.attention_processor import AttnProcessor

    plain, x = video_unet(), clip(2)
    default = copy.deepcopy(plain)
    plain.set_attn_processor(AttnProcessor())
    ours = make_attention_twice(copy.deepcopy(plain))
    weights = list(select(ours).values())

    def found(unet: nn.Module, order: int) -> list[Tensor]:
        own = list(select(unet).values())
        value = video_rows(unet, {}, x).mean()
        first = torch.autograd.grad(value, own, create_graph=order == 2, allow_unused=True)
        gradients = [value, *(torch.zeros_like(w) if g is None else g for g, w in zip(first, own, strict=True))]
        if order == 1:
            return gradients
        total = sum(g.square().sum() for g in first if g is not None)
        return [*gradients, *torch.autograd.grad(total, [w for w, g in zip(own, first, strict=True) if g is not None])]

    second = found(ours, 2)
    assert len(second) > len(weights) + 1
    assert_close(second, found(plain, 2), rtol=1e-9, atol=1e-11)
    with needing(Need.first):
        assert_close(found(ours, 1), found(default, 1), rtol=1e-9, atol=1e-11)


def test_the_need_chooses_the_kernel() -> None:
    unet = make_attention_twice(video_unet())
    for need, kernel in ((Need.first, "ScaledDotProduct"), (Need.second, "_Attention"), (Need.plain, "Softmax")):
        with needing(need):
            names = graph(generated(unet, {}, clip(1)))
        kinds = [kind for kind in ("ScaledDotProduct", "_Attention", "Softmax") if any(kind in name for name in names)]
        assert kinds == [kernel]


def test_their_own_processors_have_no_second_derivative() -> None:
    """So the tests above cannot pass by theirs."""
    unet = video_unet()
    weights = [w for name, w in unet.named_parameters() if "to_q" in name]
    first = torch.autograd.grad(video_rows(unet, {}, clip(1)).sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(sum(g.sum() for g in first), weights)


def test_attention_of_another_kind_is_refused_and_nothing_changes() -> None:
    from diffusers.models.attention_processor import AttnAddedKVProcessor

    unet = make_attention_twice(make_attention_twice(video_unet()))
    attn = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    attn.set_processor(AttnAddedKVProcessor())
    before = dict(unet.attn_processors)
    with pytest.raises(UserError, match="mid_block.*attn1 attends by AttnAddedKVProcessor, which has no second"):
        make_attention_twice(unet)
    assert unet.attn_processors == before
    with pytest.raises(UserError, match="Linear takes no attention processors; give a network of diffusers"):
        make_attention_twice(nn.Linear(2, 2))
