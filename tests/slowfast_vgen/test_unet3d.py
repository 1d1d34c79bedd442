"""UNet3D as a denoiser: the published sizes, what it is told, adapters by its temporal layers, pretrained pipelines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from common.engine.inner import adapt
from common.engine.lora import make_stackable, takes_stacks
from common.engine.rules import SGD
from common.engine.weights import Weights, call, select, stack_of
from common.errors import UserError
from slowfast_vgen.actions import Actions
from slowfast_vgen.latents.grid import Grid
from slowfast_vgen.model import build
from slowfast_vgen.networks.config import TEMPORAL, TIMED, Kind, ModelConfig
from slowfast_vgen.networks.unet3d import UNet3D
from tests.slowfast_vgen.pipelines import CONTEXT, LENGTH, VALUES, write_pipeline

SMALL: dict[str, Any] = {
    "kind": Kind.unet3d, "window": 4, "widths": [8, 8], "depth": 1, "head": 4, "groups": 2, "context": 6,
    "attended": [True, False],
}  # fmt: skip
GRID, TURNS = Grid(3, 2, 4), Actions(("left", "right"))
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def network_of(**words: Any) -> nn.Module:
    """In float64; temporal convolutions that are no identity, as they are at the start."""
    network = build(ModelConfig(**(SMALL | words)), GRID, TURNS, 0).double()
    torch.manual_seed(1)
    for name, weight in network.named_parameters():
        if "temp_convs" in name and "conv4" in name:
            nn.init.normal_(weight, std=0.3)
    return network


def batch_of(rows: int, frames: int = 4, values: int = 3) -> Batch:
    torch.manual_seed(2)
    x = torch.randn(rows, frames, values, 2, 4, dtype=torch.double)
    time = torch.rand(rows, 1, dtype=torch.double).expand(rows, frames)
    return x, time, torch.arange(rows) % 3, (torch.arange(frames) < 1).expand(rows, frames)


def test_the_backbone_has_the_published_sizes() -> None:
    """Millions: 1,411, 278 of temporal transformers, 267 of temporal convolutions. Its layers take seconds."""
    with torch.device("meta"):
        network = build(ModelConfig(), Grid(4, 32, 32), TURNS, 0).unet

    def millions(patterns: tuple[str, ...]) -> int:
        return round(sum(weight.numel() for weight in select(network, patterns).values()) / 1e6)

    assert millions(("*",)) == 1411
    assert millions(TIMED[Kind.modelscope]) == 545
    assert millions(("*temp_attentions.*", "transformer_in.*")) == 278 and millions(("*temp_convs.*",)) == 267


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_a_clip_of_any_length_up_to_the_window(frames: int) -> None:
    x, *rest = batch_of(2, frames)
    assert network_of()(x, *rest).shape == x.shape
    with pytest.raises(ValueError, match="5 frames in a window of 4"):
        network_of()(*batch_of(1, 5))


@pytest.mark.parametrize("mask", [False, True])
def test_what_it_is_told(mask: bool) -> None:
    network, (x, time, action, clean) = network_of(mask_channel=mask), batch_of(2)
    found = network(x, time, action, clean)
    assert not torch.allclose(network(x, time / 2, action, clean), found)
    assert not torch.allclose(network(x, time, action + 1, clean), found)
    assert torch.allclose(network(x, time, action, ~clean), found) != mask
    assert torch.equal(network(x, time.masked_fill(clean, 0), action, clean), found), "one time a video"


def test_nothing_is_drawn_from_the_global_generator() -> None:
    network, batch = network_of(), batch_of(2)
    before = torch.get_rng_state()
    assert network(*batch).equal(network(*batch)) and torch.get_rng_state().equal(before)


def test_stacked_adapters_of_temporal_layers_are_the_adapters_one_by_one() -> None:
    network, episodes = network_of(), 2
    chosen = layers(network, TEMPORAL[Kind.unet3d])
    adapter = Adapter(network, target_modules=chosen, r=2, lora_alpha=2)
    make_stackable(network)
    assert {name.split(".")[1] for name in adapter.matrices()} >= {"transformer_in", "down_blocks", "up_blocks"}
    each = [
        {name: torch.randn_like(w, dtype=torch.double) * 0.1 for name, w in adapter.matrices().items()}
        for _ in range(episodes)
    ]
    together, batch = stack_of(each), batch_of(2 * episodes)
    assert takes_stacks(network, together)
    found = call(network, together, *batch)
    for episode, weights in enumerate(each):
        rows = slice(2 * episode, 2 * episode + 2)
        alone = call(network, weights, *(part[rows] for part in batch))
        torch.testing.assert_close(found[rows], alone, atol=1e-9, rtol=1e-9)


def test_the_gradient_through_a_fast_step_is_that_of_plain_torch() -> None:
    network = network_of()
    fast = select(network, ["*temp_attentions*.to_q.weight", "*temp_convs.0.conv1.2.weight"])
    learning = network.get_parameter("unet.conv_in.weight")
    batch, rate = batch_of(2), 0.1

    def loss(weights: Weights, part: Batch) -> Tensor:
        return (call(network, weights, *part) - part[0].roll(1, 1)).square().mean()

    found = adapt(loss, fast, [batch], steps=1, rule=SGD(), rates=rate).weights
    mine = torch.autograd.grad(loss(found, batch), [learning, *fast.values()])

    gradients = torch.autograd.grad(loss(fast, batch), list(fast.values()), create_graph=True)
    stepped = {name: w - rate * g for (name, w), g in zip(fast.items(), gradients, strict=True)}
    plain = torch.autograd.grad(loss(stepped, batch), [learning, *fast.values()])
    torch.testing.assert_close(mine, plain, atol=1e-10, rtol=1e-7)


def test_a_pipeline_brings_weights_and_words(tmp_path: Path) -> None:
    from diffusers import UNet3DConditionModel

    folder = write_pipeline(tmp_path / "pipeline")
    network = build(ModelConfig(Kind.modelscope, 4, path=str(folder)), Grid(VALUES, 2, 4), TURNS, 0)
    assert isinstance(network, UNet3D) and network.texts.shape == (3, LENGTH, CONTEXT)
    x, time, action, clean = batch_of(3, values=VALUES)
    x, time = x.float(), time.float()
    plain = UNet3DConditionModel.from_pretrained(folder / "unet")
    expected = plain(x.transpose(1, 2), 1000 * time[:, 0] - 1, network.texts[action]).sample.transpose(1, 2)
    torch.testing.assert_close(network(x, time, action, clean), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(network.texts[1], network.texts[2]) and not network.texts.requires_grad
    assert not any("texts" in name for name, _ in network.named_parameters()), "frozen"


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("/nowhere", VALUES, r"model\.path=/nowhere: there is no such folder"),
        ("{empty}", VALUES, r"model\.path=.*: no unet that can be read"),
        ("{whole}", 3, r"a network for latents of 4 values, these have 3; use latents=vae"),
        ("{other}", VALUES, r"its text encoder gives 8 numbers a token, its network reads 12"),
    ],
)
def test_a_pipeline_that_is_none_is_refused(path: str, values: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    if "whole" in path or "other" in path:
        write_pipeline(tmp_path / path.strip("{}"), 12 if "other" in path else CONTEXT)
    where = path.format(**{name: str(tmp_path / name) for name in ("empty", "whole", "other")})
    with pytest.raises(UserError, match=message):
        build(ModelConfig(Kind.modelscope, 4, path=where), Grid(values, 2, 4), TURNS, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"frame_times": True}, r"frame_times=true with model\.kind=unet3d: .* one time a video"),
        ({"attended": [True]}, r"model\.attended=\[True\]: 1 values for the 2 levels"),
        ({"groups": 3}, r"model\.groups=3: the widths \[8, 8\] are no multiples"),
        ({"head": 3}, r"model\.head=3: the widths \[8, 8\] are no multiples"),
        (
            {"kind": Kind.modelscope, "path": "p", "mask_channel": True},
            r"first layer has no such channel",
        ),
    ],
)
def test_what_is_no_unet_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**(SMALL | words))
