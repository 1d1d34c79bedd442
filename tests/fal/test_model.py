"""Networks: sizes known from elsewhere, starts that are functions of the seed, normalising as the first layer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.engine.weights import buffers_of, call, select, stack_of
from common.errors import UserError
from fal import model
from fal.networks.config import Kind, ModelConfig, Norm
from fal.sizes import report

SIZES = {
    "mlp_64": (1, 28, 784 * 64 + 64 + 650),
    "mlp_200": (1, 28, 784 * 200 + 200 + 2010),
    "cnn_9k": (1, 28, 9_098),
    "cnn_106k": (1, 28, 105_866),
    "cnn_106k_group": (1, 28, 105_866 + 2 * 48),
    "cnn_106k_batch": (1, 28, 105_866 + 2 * 48),
    "lenet": (1, 28, 107_786),
    "nin": (3, 32, 969_802),
    "resnet18": (3, 32, 11_173_962),  # of the widespread implementation for CIFAR-10
}
SMALL = {
    "mlp": ModelConfig(Kind.mlp, [], [6]),
    "cnn": ModelConfig(Kind.cnn, [4, 8], [6]),
    "cnn group": ModelConfig(Kind.cnn, [4, 8], [], Norm.group),
    "cnn batch": ModelConfig(Kind.cnn, [4, 8], [], Norm.batch),
    "lenet": ModelConfig(Kind.lenet, [3, 4], [6, 5]),
    "nin": ModelConfig(Kind.nin, [4] * 8, [], Norm.batch),
    "resnet18": ModelConfig(Kind.resnet18, [4, 4, 8, 8], [], Norm.group),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_file_is_a_network_of_the_known_size(name: str, composed: Callable[..., Any]) -> None:
    channels, side, weights = SIZES[name]
    with torch.device("meta"):
        network = model.build(composed(f"model={name}", "data=shapes").model, channels, side, 10, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights


@pytest.mark.parametrize("name", SMALL)
def test_logits_of_any_square_image(name: str) -> None:
    for channels, side in ((1, 8), (3, 13)):
        network = model.build(SMALL[name], channels, side, 7, 0).eval()
        assert network(torch.rand(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
def test_the_start_is_a_function_of_the_seed_and_draws_nothing_else(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = model.build(SMALL[name], 1, 8, 3, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = (model.build(SMALL[name], 1, 8, 3, seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("mean", "std"), [([0.3], [0.2]), ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])])
def test_the_first_layer_normalises_and_is_no_part_of_the_state(mean: list[float], std: list[float]) -> None:
    plain = model.build(SMALL["cnn batch"], 3, 8, 4, 0).eval()
    normal = model.build(replace(SMALL["cnn batch"], mean=mean, std=std), 3, 8, 4, 0).eval()
    x = torch.rand(5, 3, 8, 8)
    shape = (-1, 1, 1)
    by_hand = (x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    assert torch.allclose(normal(x), plain(by_hand), atol=1e-6)
    assert normal.state_dict().keys() == plain.state_dict().keys()
    assert all("running" in name or "batches" in name for name, _ in normal.named_buffers())
    gradient = torch.func.grad(lambda at: normal(at).sum())(x)
    assert gradient.shape == x.shape and bool(gradient.abs().sum() > 0), "an attack goes through it"


@pytest.mark.parametrize("name", SMALL)
def test_a_stack_of_clients_is_the_clients_one_by_one(name: str) -> None:
    network = model.build(SMALL[name], 1, 8, 3, 0).double().train()
    starts = [select(model.build(SMALL[name], 1, 8, 3, seed).double()) for seed in range(3)]
    x = torch.rand(3, 5, 1, 8, 8, dtype=torch.double)
    moved = stack_of([buffers_of(network)] * 3)
    together = torch.func.vmap(lambda w, own, images: call(network, {**w, **own}, images))(stack_of(starts), moved, x)
    for client, weights in enumerate(starts):
        alone = buffers_of(network)
        assert torch.allclose(call(network, {**weights, **alone}, x[client]), together[client], atol=1e-12)
        assert all(torch.allclose(alone[name].double(), moved[name][client].double(), atol=1e-12) for name in alone)


def test_vectors_go_to_an_mlp_and_to_nothing_else() -> None:
    network = model.build(replace(SMALL["mlp"], mean=[1.0, 2.0], std=[2.0]), 2, 1, 3, 0)
    assert network(torch.rand(4, 2)).shape == (4, 3)
    with pytest.raises(UserError, match=r"model\.kind=cnn: these data are vectors, no images; use model=mlp_64"):
        model.build(SMALL["cnn"], 2, 1, 3, 0)


def test_resnet_is_the_sum_of_body_and_shortcut() -> None:
    network = model.build(SMALL["resnet18"], 1, 8, 3, 0)
    blocks = [module for module in network.modules() if type(module).__name__ == "Block"]
    assert len(blocks) == 8
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(blocks[0](x), F.relu(blocks[0].body(x) + x)), "the same width: the shortcut is the image itself"
    widths = [isinstance(block.shortcut, nn.Sequential) and len(block.shortcut) for block in blocks]
    assert widths == [0, 0, 2, 0, 2, 0, 2, 0], "halved sides need a convolution, of equal width too"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": Kind.mlp}, r"model\.channels=\[16, 32\] with model\.kind=mlp: 2 widths; use 0"),
        ({"channels": []}, r"model\.channels=\[\] with model\.kind=cnn: 0 widths; use 1"),
        ({"hidden": [0]}, r"model\.hidden=\[0\]: use widths of 1 or more"),
        ({"kind": Kind.nin, "channels": [4] * 8}, r"model\.hidden=\[64\] with model\.kind=nin.*use \[\]"),
        (
            {"kind": Kind.lenet, "norm": Norm.batch},
            r"model\.kind=lenet: use none, or .*\(model\.kind=cnn or nin or resnet18\)",
        ),
        ({"norm": Norm.group, "groups": 5}, r"model\.groups=5: the widths \[16, 32\] are no multiples"),
        ({"std": [0.0]}, r"model\.std=\[0\.0\]: give a mean, and a std above 0"),
    ],
)
def test_what_is_no_network_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**words)


@pytest.mark.parametrize(
    ("config", "channels", "side", "message"),
    [
        (replace(SMALL["cnn"], mean=[0.1, 0.2]), 3, 8, r"model\.mean=\[0\.1, 0\.2\]: 2 numbers for 3 channels"),
        (SMALL["lenet"], 1, 3, r"images of side 3 are too small; 4 is needed"),
    ],
)
def test_a_network_that_does_not_go_with_the_images_is_refused(
    config: ModelConfig, channels: int, side: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model.build(config, channels, side, 10, 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model=cnn_9k", "scale=cpu"), ["9,098", "5 of 5 clients at once"]),
        (
            ("model=cnn_106k_batch", "data=shapes", "partition.clients=12", "federation.batch=32"),
            ["98 buffers", "6 of 12 clients at once"],
        ),
        (("model=resnet18", "data=shapes", "federation.batch=32"), ["11,172,810", "1 of 5 clients", "one by one"]),
        (("model=mlp_64", "data=clusters", "partition=iid"), ["on 2x1x1", "a batch of 160"]),
    ],
)
def test_the_command_says_how_large_it_is_and_what_a_stack_holds(
    words: tuple[str, ...], told: list[str], tmp_path: Any, data_root: Any,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fal.model", f"data.root={data_root}", *words, f"loop.root={tmp_path}"])
    model.main()
    shown = capsys.readouterr().out
    assert all(text in shown for text in told), shown


def test_looking_at_sizes_moves_no_running_statistics(composed: Callable[..., Any]) -> None:
    config = composed("model=cnn_106k_batch", "data=shapes", "federation.batch=32")
    network = model.build(config.model, 1, 8, 10, 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shown = report(network, config, (1, 8), 4000)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    whole = replace(config, federation=replace(config.federation, batch=0))
    assert "a batch of 32," in shown and "a batch of 800," in report(network, whole, (1, 8), 4000)
