"""Adapters of a video UNet and of a toy with every kind of layer: where they are, stacks, files, and other bases."""

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from common.engine.inner import adapt
from common.engine.lora import make_stackable
from common.engine.rates import LearnedRates
from common.engine.rules import SGD, AdamW, UpdateRule
from common.engine.settings import Unroll
from common.engine.twice.policy import Need, needing
from common.engine.twice.processor import make_attention_twice
from common.engine.weights import Weights, call, stack, unstack
from common.errors import UserError
from common.run.export import write
from tests.common.engine.unet import TEMPORAL, clip, generated, video_unet

logger = logging.getLogger(__name__)  # measured errors: pytest --log-cli-level=INFO
EPISODES = 3
TIGHT = 1e-10
RULES: dict[str, tuple[UpdateRule, float]] = {"sgd": (SGD(), 0.1), "adamw": (AdamW(eps=0.01), 0.01)}


class Toy(nn.Module):
    """A clip [rows, 2, frames, 4, 4] -> [rows, 4, 3], through one layer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Conv3d(2, 4, 3, padding=1)
        self.plane = nn.Conv2d(4, 4, 3, padding=1)
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 3))
        self.plain = nn.ModuleDict({"line": nn.Linear(3, 3)})

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.volume(x)).mean(2)
        x = F.silu(self.plane(x)).mean(2)
        x = F.silu(self.line(x)).transpose(1, 2)
        return self.plain["line"](self.head(x))


@dataclass(frozen=True)
class Kind:
    base: Callable[[], nn.Module]
    patterns: list[str]
    adapted: int
    """Layers that match."""
    outputs: Callable[[nn.Module, Weights, Tensor], Tensor]
    """[rows, channels, frames, height, width] -> [rows, ...]."""


KINDS = {
    "toy": Kind(lambda: Toy().double(), ["volume", "plane", "line", "head.*"], 5, call),
    "video": Kind(video_unet, TEMPORAL, 5 * 8 + 8 * 4, generated),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def attached(kind: Kind, base: nn.Module, **more: Any) -> Adapter:
    """A and B random, so that no gradient vanishes."""
    if hasattr(base, "set_attn_processor"):
        make_attention_twice(base)
    chosen = layers(base, kind.patterns)
    adapter = Adapter(base, target_modules=chosen, **{"r": 2, "lora_alpha": 4, "init_lora_weights": False, **more})
    base.eval()
    return adapter


def spread(weights: Weights) -> Weights:
    """A stack whose episodes differ."""
    return {name: torch.stack([w + 0.1 * torch.randn_like(w) for _ in range(EPISODES)]) for name, w in weights.items()}


def rows_of(kind: Kind, network: nn.Module, weights: Weights, clips: Tensor) -> Tensor:
    """Loss of every row of `clips` [rows, ...]."""
    return kind.outputs(network, weights, clips).square().flatten(1).mean(1)


# ---- where it is put


def test_layers_that_match_get_one_and_the_rest_is_frozen(kind: Kind) -> None:
    base = kind.base()
    before, x = copy.deepcopy(base), clip(2)
    adapter = attached(kind, base, init_lora_weights=True)
    found = {name.partition(".lora_")[0] for name in adapter.matrices()}
    assert len(found) == kind.adapted and len(adapter.matrices()) == 2 * kind.adapted
    assert {name for name, w in base.named_parameters() if w.requires_grad} == set(adapter.matrices())
    torch.testing.assert_close(kind.outputs(base, {}, x), kind.outputs(before, {}, x), rtol=TIGHT, atol=1e-12)


def test_a_temporal_pattern_leaves_what_is_spatial_alone() -> None:
    unet = video_unet()
    attached(KINDS["video"], unet)
    adapted = {name.partition(".lora_A")[0] for name, _ in unet.named_modules() if ".lora_A." in name}
    assert all(any(part in name for part in ("temp_attentions", "transformer_in", "temp_convs")) for name in adapted)
    assert any("temp_convs" in name for name in adapted)
    assert not any(part in name for name in adapted for part in (".ff.", ".proj_in", ".proj_out"))


def test_a_name_is_a_whole_name_and_not_the_end_of_others() -> None:
    toy = Toy()
    adapter = Adapter(toy, target_modules=layers(toy, ["line"]), r=1)
    assert {name.partition(".lora_")[0] for name in adapter.matrices()} == {"line"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], r"fast.layers=\[\]: no layer gets an adapter; name some, such as volume, plane, line, head.0"),
        (["line", "*.temporal"], r"fast.layers: the pattern '\*.temporal' matches no linear .*like volume, plane"),
        (["head"], "fast.layers: the pattern 'head' matches no linear or convolution layer"),
    ],
)
def test_patterns_without_a_layer_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        layers(Toy(), patterns, "fast.layers")


# ---- stacked over episodes


def test_a_stack_gives_every_episode_its_values_and_gradients(kind: Kind) -> None:
    adapter = attached(kind, kind.base())
    plain = copy.deepcopy(adapter.network)
    network, clips = make_stackable(adapter.network), clip(EPISODES, 2)
    weights = {name: w.requires_grad_() for name, w in spread(adapter.matrices()).items()}
    together = rows_of(kind, network, weights, clips.flatten(0, 1)).view(EPISODES, 2)
    gradients = dict(zip(weights, torch.autograd.grad(together.sum(), list(weights.values())), strict=True))
    for episode in range(EPISODES):
        own = {name: w.detach().requires_grad_() for name, w in unstack(weights, episode).items()}
        alone = rows_of(kind, plain, own, clips[episode])
        torch.testing.assert_close(together[episode], alone, rtol=TIGHT, atol=0)
        for name, gradient in zip(own, torch.autograd.grad(alone.sum(), list(own.values())), strict=True):
            assert close(gradients[name][episode], gradient) < TIGHT, name


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute])
@pytest.mark.parametrize("rule", RULES)
def test_the_meta_gradient_of_a_stack_is_that_of_one_episode_after_the_other(
    kind: Kind, rule: str, unroll: Unroll
) -> None:
    """In A, B, the rates and the weights of the base; alone by a stored graph of plain attention."""
    adapter = attached(kind, kind.base())
    plain, network = copy.deepcopy(adapter.network), make_stackable(adapter.network)
    if hasattr(plain, "set_attn_processor"):
        from diffusers.models.attention_processor import AttnProcessor

        plain.set_attn_processor(AttnProcessor())
    seen, asked, (update, lr) = clip(EPISODES, 2), clip(EPISODES, 1), RULES[rule]
    rates = LearnedRates(list(adapter.matrices()), steps=2, start=lr).double()

    def learning(of: nn.Module) -> list[Tensor]:
        return [*(w.requires_grad_() for w in of.parameters()), rates.numbers]

    inputs = learning(plain)
    fast = {name: w for name, w in plain.named_parameters() if "lora_" in name}
    alone = [torch.zeros_like(x) for x in inputs]
    losses = []
    for episode in range(EPISODES):
        result = adapt(
            lambda w, x: rows_of(kind, plain, w, x).mean(), fast, [seen[episode]],
            steps=2, rule=update, rates=rates, unroll=Unroll.stored,
        )  # fmt: skip
        losses.append(rows_of(kind, plain, result.weights, asked[episode]).mean())
        found = torch.autograd.grad(losses[-1], inputs, materialize_grads=True)
        alone = [total + new for total, new in zip(alone, found, strict=True)]

    def of_all(weights: Weights, clips: Tensor) -> Tensor:
        return rows_of(kind, network, weights, clips.flatten(0, 1)).view(clips.shape[:2]).mean(1)

    inputs, start = learning(network), stack(adapter.matrices(), EPISODES)
    slow = [w for name, w in network.named_parameters() if "lora_" not in name]
    result = adapt(of_all, start, [seen], steps=2, rule=update, rates=rates, unroll=unroll, also=slow)
    outer = of_all(result.weights, asked)
    torch.testing.assert_close(outer, torch.stack(losses), rtol=TIGHT, atol=0)
    together = torch.autograd.grad(outer.sum(), inputs, materialize_grads=True)
    assert sum(bool(g.any()) for g in alone) > len(fast)
    error = max(close(a, b) for a, b in zip(together, alone, strict=True))
    logger.info("relative error %.1e", error)
    assert error < TIGHT


def close(found: Tensor, expected: Tensor) -> float:
    """Their distance beside the size of `expected`."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-10)).item()


# ---- files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_peft_generates_the_same_bits_from_the_folder_of_one_episode(
    kind: Kind, dtype: torch.dtype, tmp_path: Path
) -> None:
    from peft import PeftModel

    base = kind.base().to(dtype).eval()
    adapter = attached(kind, copy.deepcopy(base))
    network, x = make_stackable(adapter.network), clip(2).to(dtype)
    weights = {name: w.detach() for name, w in unstack(spread(adapter.matrices()), 1).items()}
    write(tmp_path / "memory", adapter.files(weights))
    theirs = PeftModel.from_pretrained(base, tmp_path / "memory").eval()
    with torch.no_grad(), needing(Need.first):
        ours = kind.outputs(network, weights, x)
        assert torch.equal(kind.outputs(theirs, {}, x), ours)
        assert not torch.allclose(kind.outputs(network, {}, x), ours, rtol=1e-4)
    for opened in (adapter, attached(kind, kind.base().to(dtype))):
        read = opened.read(tmp_path / "memory")
        assert list(read) == list(weights) and all(w.equal(weights[name]) for name, w in read.items())


def test_an_adapter_of_a_part_is_in_files_that_of_the_part_alone(tmp_path: Path) -> None:
    from peft import PeftModel

    toy = Toy().eval()
    whole = nn.ModuleDict({"toy": copy.deepcopy(toy), "beside": nn.Linear(2, 2)})
    adapter = Adapter(whole, "toy", target_modules=layers(toy, ["plane", "head.*"]), r=2, init_lora_weights=False)
    own, fingerprint = adapter.matrices(), adapter.fingerprint()
    assert {name.partition(".lora_")[0] for name in own} == {"toy.plane", "toy.head.0", "toy.head.2"}
    assert {name for name, weight in whole.named_parameters() if weight.requires_grad} == own.keys()
    write(tmp_path / "memory", adapter.files({}))
    assert all(value.equal(own[name]) for name, value in adapter.read(tmp_path / "memory").items())
    theirs, x = PeftModel.from_pretrained(toy, tmp_path / "memory"), clip(2).float()
    with torch.no_grad():
        assert torch.equal(theirs(x), whole["toy"](x))
        whole["beside"].weight.add_(1)
    assert adapter.fingerprint() != fingerprint, "what lies beside the part is base, too"


def test_what_is_saved_is_named_by_the_caller_or_left_to_peft(tmp_path: Path) -> None:
    adapter = attached(KINDS["toy"], Toy())
    for base in (None, "runs/toy/base"):
        adapter.files({}, base).save_pretrained(str(tmp_path))
        assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    assert all(w.equal(adapter.matrices()[name]) for name, w in adapter.read(tmp_path).items())


def test_a_stack_and_weights_of_the_base_are_in_no_folder() -> None:
    adapter = attached(KINDS["toy"], Toy())
    with pytest.raises(ValueError, match=r"volume.lora_A.default.weight is \[3, 2, 2, 3, 3, 3\], .*: unstack first"):
        adapter.files(stack(adapter.matrices(), EPISODES))
    with pytest.raises(UserError, match="1 of the weights .* such as head.0.base_layer.bias, belong to no adapter"):
        adapter.files({"head.0.base_layer.bias": torch.zeros(4)})


@pytest.mark.parametrize(
    ("settings", "patterns", "message"),
    [
        ({"r": 3}, None, "with r=3, this model's has 2"),
        ({"lora_alpha": 5}, None, "with lora_alpha=5, this model's has 4"),
        ({"use_rslora": True}, None, "with use_rslora=True, this model's has None"),
        ({}, ["line"], "with target_modules=line, this model's has volume|plane|line"),
    ],
)
def test_an_adapter_of_other_settings_is_refused(
    settings: dict[str, Any], patterns: list[str] | None, message: str, tmp_path: Path
) -> None:
    toy, other = KINDS["toy"], Toy()
    chosen = layers(other, patterns or toy.patterns)
    Adapter(other, **{"target_modules": chosen, "r": 2, "lora_alpha": 4, **settings}).files({}).save_pretrained(
        str(tmp_path)
    )
    with pytest.raises(UserError) as error:
        attached(toy, Toy()).read(tmp_path)
    assert message in str(error.value)


def test_the_fingerprint_is_the_bases_and_not_the_adapters(kind: Kind) -> None:
    base = kind.base()
    first, second = (attached(kind, copy.deepcopy(base)) for _ in range(2))
    make_stackable(second.network)
    assert not all(w.equal(second.matrices()[name]) for name, w in first.matrices().items())
    own = first.fingerprint()
    assert len(own) == 12 and second.fingerprint() == own
    weight = next(w for name, w in second.network.named_parameters() if "lora_" not in name)
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
    assert second.fingerprint() != own
    assert attached(kind, copy.deepcopy(base).double()).fingerprint() == own, "the same numbers"
    assert attached(kind, copy.deepcopy(base).bfloat16()).fingerprint() != own, "rounded ones"


def test_a_checkpoint_is_what_learns() -> None:
    first, second = attached(KINDS["toy"], Toy()), attached(KINDS["toy"], Toy())
    for adapter in (first, second):
        adapter.network.plain["line"].weight.requires_grad_()
    state = first.state_dict()
    assert state.keys() == {*first.matrices(), "plain.line.weight"}
    second.load_state_dict({name: value.clone() for name, value in state.items()})
    assert all(value.equal(second.state_dict()[name]) for name, value in state.items())
    with pytest.raises(RuntimeError, match=r"other weights learn here: \['plain.line.weight'\]"):
        second.load_state_dict(first.matrices())
