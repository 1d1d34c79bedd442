"""The factored denoiser: what it depends on, stacked adapters, and gradients through fast steps, in float64."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from common.engine.inner import adapt
from common.engine.lora import make_stackable, takes_stacks
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights, call, select, stack, stack_of, unstack
from common.errors import UserError
from slowfast_vgen.networks.config import TEMPORAL, Kind, ModelConfig
from slowfast_vgen.networks.factored import Factored

SMALL = ModelConfig(Kind.factored, 4, widths=[8], head=4, attended=[])
ROOMS = ModelConfig(Kind.factored, 4, mask_channel=True, widths=[64], head=16, attended=[])
VALUES, HEIGHT, WIDTH, ACTIONS = 3, 1, 2, 3
EPISODES, CLIPS = 3, 2
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def network_of(config: ModelConfig = SMALL) -> Factored:
    """In float64, with an output and modulations that are not 0."""
    torch.manual_seed(0)
    network = Factored(config, VALUES, HEIGHT, WIDTH, ACTIONS).double()
    for name, weight in network.named_parameters():
        if "modulation" in name or "leave" in name:
            nn.init.normal_(weight, std=0.3)
    return network


def batch_of(*shape: int, frames: int = 4) -> Batch:
    x = torch.randn(*shape, frames, VALUES, HEIGHT, WIDTH, dtype=torch.double)
    time = torch.rand(*shape, 1, dtype=torch.double).expand(*shape, frames)
    clean = (torch.arange(frames) < 1).expand(*shape, frames)
    return x, time, torch.randint(ACTIONS, shape), clean


def adapted_network() -> tuple[Factored, Adapter]:
    network = network_of()
    adapter = Adapter(
        network, target_modules=layers(network, TEMPORAL[Kind.factored]), r=2, lora_alpha=2, init_lora_weights=True
    )
    make_stackable(network)
    return network, adapter


def split(adapter: Adapter) -> tuple[Weights, Weights]:
    """A and B of every layer, B not 0."""
    matrices = {name: w.detach().clone().double() for name, w in adapter.matrices().items()}
    fast = {name: torch.randn_like(w) for name, w in matrices.items() if "lora_B" in name}
    return {name: w for name, w in matrices.items() if "lora_A" in name}, fast


def test_its_size_is_that_of_the_rooms() -> None:
    network = Factored(ROOMS, 10, 1, 2, ACTIONS)
    assert 150_000 < sum(weight.numel() for weight in network.parameters()) < 170_000


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_a_clip_of_any_length_up_to_the_window(frames: int) -> None:
    x, *rest = batch_of(5, frames=frames)
    assert network_of()(x, *rest).shape == x.shape
    with pytest.raises(ValueError, match="5 frames in a window of 4"):
        network_of()(*batch_of(5, frames=5))


def test_its_start_predicts_0_and_learns_all_the_same() -> None:
    network = Factored(SMALL, VALUES, HEIGHT, WIDTH, ACTIONS).double()
    found = network(*batch_of(5))
    assert torch.equal(found, torch.zeros_like(found))
    (found - 1).square().mean().backward()
    assert network.leave.weight.grad is not None and bool(network.leave.weight.grad.abs().sum() > 0)


def test_rows_do_not_see_one_another_and_frames_and_positions_do() -> None:
    network, (x, *rest) = network_of(), batch_of(3)
    reach = torch.func.jacrev(lambda at: network(at, *rest).sum(2))(x).abs().sum(6)
    by_row = reach.sum((1, 2, 3, 5, 6, 7))
    assert torch.equal(by_row > 0, torch.eye(3, dtype=torch.bool))
    assert bool((reach[0, :, :, :, 0] > 0).all()), "every frame and position by every other"


def test_order_of_frames_and_positions_matters() -> None:
    network, (x, *rest) = network_of(), batch_of(2)
    for axis in (1, 4):
        assert not torch.allclose(network(x.flip(axis), *rest).flip(axis), network(x, *rest))


def test_one_time_a_video_is_that_of_the_noised_frames() -> None:
    x, _, action, clean = batch_of(2)
    time = torch.tensor([[0.7] * 4, [0.2] * 4]).double()
    told = time.masked_fill(clean, 0)
    single, each = network_of(), network_of(replace(SMALL, frame_times=True))
    assert torch.equal(single(x, time, action, clean), single(x, told, action, clean))
    assert torch.equal(each(x, time, action, clean), each(x, told, action, clean)), "a clean frame has time 0"
    none = torch.zeros_like(clean)
    torch.testing.assert_close(each(x, time, action, none), single(x, time, action, none))
    assert not torch.allclose(each(x, told, action, none), single(x, time, action, none))


@pytest.mark.parametrize("mask", [False, True])
def test_which_frames_are_clean_is_told_by_the_mask_channel_alone(mask: bool) -> None:
    network, (x, time, action, clean) = network_of(replace(SMALL, mask_channel=mask)), batch_of(2)
    same = torch.allclose(network(x, time, action, clean), network(x, time, action, ~clean))
    assert same != mask


def test_every_input_matters() -> None:
    network, (x, time, action, clean) = network_of(), batch_of(2)
    found = network(x, time, action, clean)
    assert not torch.allclose(network(x, time / 2, action, clean), found)
    assert not torch.allclose(network(x, time, (action + 1) % ACTIONS, clean), found)


def test_a_fresh_adapter_changes_nothing() -> None:
    batch = batch_of(4)
    before = network_of()(*batch)
    network, _ = adapted_network()
    assert torch.equal(network(*batch), before)


def test_stacked_adapters_are_the_adapters_one_by_one() -> None:
    network, adapter = adapted_network()
    episodes = [{**a, **b} for a, b in (split(adapter) for _ in range(EPISODES))]
    together, batch = stack_of(episodes), batch_of(EPISODES, CLIPS)
    assert takes_stacks(network, together)
    found = call(network, together, *(part.flatten(0, 1) for part in batch)).unflatten(0, (EPISODES, CLIPS))
    for episode, weights in enumerate(episodes):
        alone = call(network, weights, *(part[episode] for part in batch))
        torch.testing.assert_close(found[episode], alone, atol=1e-10, rtol=1e-10)


def denoised(network: nn.Module, weights: Weights, batch: Batch, rows: int | None = None) -> Tensor:
    """A loss of every episode of a stack, or of the one there is."""
    x, time, action, clean = (part.flatten(0, 1) if rows else part for part in batch)
    error = (call(network, weights, x, time, action, clean) - x.roll(1, 1)).square()
    return error.unflatten(0, (rows, -1)).flatten(1).mean(1) if rows else error.mean()


@pytest.mark.parametrize("unroll", [Unroll.stored, Unroll.recompute])
def test_gradients_through_the_fast_steps_are_those_of_plain_torch(unroll: Unroll) -> None:
    """B is fast and starts at 0; A and the network learn. Stacked by the engine, one by one in plain torch."""
    steps, rate = 3, 0.5
    network, adapter = adapted_network()
    a, b = split(adapter)
    zeros = {name: torch.zeros_like(w) for name, w in b.items()}
    slow = [w for name, w in network.named_parameters() if "lora" not in name]
    learning = [w.requires_grad_() for w in a.values()]
    for weight in slow:
        weight.requires_grad_()
    inner, outer = batch_of(EPISODES, CLIPS), batch_of(EPISODES, CLIPS)

    own = {name: w.expand(EPISODES, *w.shape) for name, w in a.items()}

    def of_stack(fast: Weights, batch: Batch) -> Tensor:
        return denoised(network, {**own, **fast}, batch, EPISODES)

    fast = adapt(
        of_stack, stack(zeros, EPISODES), [inner], steps=steps, rule=SGD(), rates=rate, unroll=unroll,
        also=[*learning, *slow],
    ).weights  # fmt: skip
    found = torch.autograd.grad(of_stack(fast, outer).sum(), [*learning, *slow], allow_unused=True)

    total: Any = 0
    for episode in range(EPISODES):
        seen, asked = (tuple(part[episode] for part in batch) for batch in (inner, outer))
        at = {name: w.clone().requires_grad_() for name, w in zeros.items()}
        for _ in range(steps):
            gradients = torch.autograd.grad(denoised(network, {**a, **at}, seen), list(at.values()), create_graph=True)
            at = {name: w - rate * g for (name, w), g in zip(at.items(), gradients, strict=True)}
        for name, weight in at.items():
            torch.testing.assert_close(unstack(fast, episode)[name], weight, atol=1e-10, rtol=1e-8)
        total = total + denoised(network, {**a, **at}, asked)
    expected = torch.autograd.grad(total, [*learning, *slow], allow_unused=True)
    assert sum(g is not None and bool(g.abs().max() > 0) for g in expected) > len(expected) / 2
    for mine, theirs in zip(found, expected, strict=True):
        if theirs is not None and mine is not None:
            torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-7)
        else:
            assert all(g is None or not g.any() for g in (mine, theirs))


def test_what_carries_an_adapter_is_what_sees_time_and_the_mlp() -> None:
    _, adapter = adapted_network()
    names = {name.split(".lora")[0].split(".", 2)[2] for name in adapter.matrices()}
    assert names == {"temporal.qkv", "temporal.out", "mlp.0", "mlp.2"}
    with pytest.raises(UserError, match=r"fast\.layers: the pattern 'temp_convs' matches no"):
        layers(network_of(), ["temp_convs"], "fast.layers")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"widths": [8, 8]}, r"model\.widths=\[8, 8\] with model\.kind=factored: it has one width; use \[64\]"),
        ({"head": 3}, r"model\.head=3: the width 8 of model\.widths is no multiple of it; use 2"),
        ({"window": 0}, r"model\.window=0: use 1 or more"),
        ({"widths": []}, r"model\.widths=\[\]: give a width"),
        ({"path": "there"}, r"model\.path=there with model\.kind=factored: only kind=modelscope is loaded"),
    ],
)
def test_what_is_no_network_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **words)


def test_all_weights_are_selected_by_their_names() -> None:
    network = network_of()
    temporal = select(network, ["*.temporal.*"])
    assert len(temporal) == 8 and all("temporal" in name for name in temporal)
