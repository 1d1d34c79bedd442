"""Eq. 2 and Eq. 3, and what slow learning makes of a batch."""

import torch
from torch import Tensor, nn

from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction
from slowfast_vgen.diffusion.diffusion import diffusion_of
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.settings import SlowConfig
from slowfast_vgen.slow import SlowWeights, slow_loss
from tests.slowfast_vgen.small import parts

EPS = diffusion_of(DiffusionConfig(Prediction.eps), 8)


class Told(nn.Module):
    """Predicts what it is told, and remembers what it was given."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, x: Tensor, time: Tensor, action: Tensor, clean: Tensor) -> Tensor:
        self.given = (x, time, action, clean)
        return self.said.expand(x.shape) if self.said.dim() < x.dim() else self.said[: len(x), : x.shape[1]]


def clips(count: int = 6, frames: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(count, frames, 2, 1, 2, generator=draw) for _ in range(2))


def test_loss_is_the_mean_square_over_the_frames_that_are_noised_alone():
    z, noise = clips()
    said = clips()[0] * 0.3
    clean = torch.tensor([[True, True, False, False]]).expand(6, -1)
    found = denoising_loss(Told(said), EPS, z, torch.zeros(6).long(), clean, torch.full((6,), 0.5), noise)
    assert torch.allclose(found, (said - noise)[:, 2:].square().flatten(1).mean(1))


def test_gradient_with_respect_to_the_prediction_on_past_frames_is_exactly_zero():
    z, noise = clips()
    network = Told(clips()[0])
    clean = torch.arange(4) < torch.tensor([0, 1, 2, 3, 2, 1])[:, None]
    denoising_loss(network, EPS, z, torch.ones(6).long(), clean, torch.full((6,), 0.7), noise).sum().backward()
    assert (network.said.grad[clean] == 0).all()
    assert (network.said.grad[~clean] != 0).all()


def test_clean_frames_enter_as_they_are_and_the_others_noised():
    z, noise = clips()
    network = Told(torch.zeros(()))
    clean = (torch.arange(4) < 2).expand(6, -1)
    t = torch.linspace(0.1, 0.9, 6)
    denoising_loss(network, EPS, z, torch.ones(6).long(), clean, t, noise)
    x, times, action, told = network.given
    assert x[:, :2].equal(z[:, :2]) and told.equal(clean) and action.eq(1).all()
    assert torch.allclose(x[:, 2:], EPS.noised(z, noise, t)[:, 2:])
    assert times.equal(t[:, None].expand(6, 4))


def slow(config: SlowConfig, ids: list[str], z: Tensor, action: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The loss, and what the network was given in each of its calls."""
    calls = []

    class Kept(Told):
        def forward(self, *given: Tensor) -> Tensor:
            calls.append(given)
            return super().forward(*given)

    return slow_loss(Kept(torch.zeros(())), EPS, config, 0, ids, z, action, 2), calls


def test_a_batch_has_the_shares_of_pasts_that_are_asked_for():
    z, _ = clips(20)
    ids = [f"train/clips/{number}" for number in range(20)]
    config = SlowConfig(no_past=0.2, one_frame=0.25, action_dropout=0.0)
    _, ((x, _, action, clean), (short, _, _, first)) = slow(config, ids, z, torch.ones(20).long())
    assert clean.sum(1).tolist() == [0] * 4 + [2] * 11 and action.tolist() == [0] * 4 + [1] * 11
    assert x.shape[1] == 4 and short.shape[1] == 3  # the last frame of the past, then the chunk
    assert first.sum(1).tolist() == [1] * 5 and short[:, 0].equal(z[15:, 1])


def test_actions_are_dropped_in_the_share_that_is_asked_for_by_clip():
    z, _ = clips(400)
    ids = [f"train/clips/{number}" for number in range(400)]
    config = SlowConfig(no_past=0.0, action_dropout=0.25)
    _, ((_, _, action, _),) = slow(config, ids, z, torch.ones(400).long())
    assert abs(action.eq(0).double().mean() - 0.25) < 0.09
    _, ((_, _, again, _),) = slow(config, ids[::-1], z, torch.ones(400).long())
    assert again.equal(action.flip(0))


def test_the_mean_follows_the_weights_and_is_taken_over_once():
    network = nn.Linear(1, 1, bias=False)
    weights = SlowWeights(network, 0.5)
    start = network.weight.item()
    with torch.no_grad():
        network.weight.add_(1.0)
    weights.average(1000)
    assert abs(weights.mean["weight"].item() - (start + 0.5)) < 1e-6
    with weights.averaged():
        assert abs(network.weight.item() - (start + 0.5)) < 1e-6
    assert abs(network.weight.item() - (start + 1)) < 1e-6
    weights.settle()
    assert abs(network.weight.item() - (start + 0.5)) < 1e-6 and not weights.mean


def test_slow_weights_keep_their_names_when_an_adapter_comes():
    found, _ = parts()
    before = found.slow.state_dict()
    found.lora.attach()
    SlowWeights(found.network, 0.0)  # one made afterwards has others
    assert found.slow.state_dict()["now"].keys() == before["now"].keys()
    found.slow.load_state_dict(before)
