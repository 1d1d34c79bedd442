"""Roll-outs in latent space."""

import torch
from torch import Tensor, nn

from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction
from slowfast_vgen.diffusion.diffusion import diffusion_of
from slowfast_vgen.episodes import seen
from slowfast_vgen.imagine import imagined
from slowfast_vgen.latents.latents import Latents
from slowfast_vgen.sampler import roll_out, sample
from tests.slowfast_vgen.small import parts

VELOCITY = diffusion_of(DiffusionConfig(Prediction.v, zero_snr=True), 8)


class Knowing(nn.Module):
    """Predicts the velocity towards latents that it knows, and adds what the past is worth."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z, self.calls = z, []

    def forward(self, x: Tensor, time: Tensor, action: Tensor, clean: Tensor) -> Tensor:
        self.calls.append((x.clone(), clean, action))
        t = time[:, 0]
        signal, share = (each.view(-1, 1, 1, 1, 1) for each in VELOCITY.shares(t))
        z = self.z.expand(x.shape)
        noise = (x - signal * z) / share.clamp(min=1e-6)
        return signal * noise - share * z


def test_a_network_that_knows_the_latents_samples_them_in_any_number_of_steps():
    draw = torch.Generator().manual_seed(0)
    z, noise = torch.randn(3, 4, 2, 1, 2, generator=draw), torch.randn(3, 2, 2, 1, 2, generator=draw)
    past = torch.randn(3, 2, 2, 1, 2, generator=draw)
    for steps in (1, 3, 10):
        found = sample(Knowing(z), VELOCITY, past, torch.ones(3).long(), noise, steps=steps)
        assert torch.allclose(found, z[:, 2:], atol=1e-4)


def test_the_past_enters_every_step_bit_for_bit_and_is_not_written_to():
    draw = torch.Generator().manual_seed(1)
    past, noise = torch.randn(2, 2, 2, 1, 2, generator=draw), torch.randn(2, 2, 2, 1, 2, generator=draw)
    network, before = Knowing(torch.zeros(1, 1, 2, 1, 2)), past.clone()
    sample(network, VELOCITY, past, torch.tensor([1, 2]), noise, steps=5)
    assert past.equal(before) and len(network.calls) == 5
    for x, clean, _ in network.calls:
        assert x[:, :2].equal(before) and clean.tolist() == [[True, True, False, False]] * 2


def test_guidance_mixes_the_null_action_in():
    found, _ = parts()
    draw = torch.Generator().manual_seed(1)
    shape = (found.latents.values, found.latents.height, found.latents.width)
    past, noise = torch.randn(2, 2, *shape, generator=draw), torch.randn(2, 2, *shape, generator=draw)

    def of(action: list[int], guidance: float) -> Tensor:
        ids = torch.tensor(action)
        return sample(found.network, found.diffusion, past, ids, noise, steps=1, guidance=guidance)

    null, told = of([0, 0], 1.0), of([1, 2], 1.0)
    assert (null - told).abs().max() > 1e-3
    assert torch.allclose(of([1, 2], 3.0), null + 3 * (told - null), atol=1e-4)


def test_each_chunk_comes_from_the_one_before_and_is_learned_after_it():
    log = []

    def generate(past: Tensor, action: Tensor, chunk: int) -> Tensor:
        log.append(("generate", chunk, past.shape[1]))
        return past.new_full((1, 2, 1, 1, 1), float(past.flatten()[-1]) + float(action))

    def learn(past: Tensor, new: Tensor, action: Tensor, chunk: int) -> None:
        log.append(("learn", chunk, float(new.flatten()[0])))

    chunks = roll_out(generate, torch.zeros(1, 2, 1, 1, 1), torch.tensor([[1, 2]]), learn, lambda z: z[-1][:, -1:])
    assert [float(each.flatten()[0]) for each in chunks] == [0, 1, 3]
    assert log == [("generate", 1, 1), ("learn", 1, 1.0), ("generate", 2, 1), ("learn", 2, 3.0)]


def test_an_imagined_episode_is_encoded_once_and_decoded_never(monkeypatch):
    found, config = parts()
    episodes = found.world.episodes(0, "test", "out_and_back", 2, 0, 3)
    there = seen(episodes, found.latents, config.method, found.device)
    calls = []
    for name in ("encode", "decode"):
        monkeypatch.setattr(type(found.latents), name, lambda *_: calls.append(1))
    found.lora.attach()
    lived = imagined(found, config, there, every=True)
    assert not calls and issubclass(type(found.latents), Latents)
    assert lived.z[:, 0].equal(there.z[:, 0]) and lived.z.shape == there.z.shape
    assert not lived.z[:, 1].equal(there.z[:, 1])
