"""Noise and back against diffusers' schedulers, and by the equations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from slowfast_vgen.diffusion.config import DiffusionConfig, Prediction, Schedule, shift_by_size
from slowfast_vgen.diffusion.diffusion import Diffusion, Flow, diffusion_of

SIZE = 20
ALL = [
    DiffusionConfig(kind, schedule, zero)
    for kind in Prediction
    for schedule in Schedule
    for zero in (False, True)
    if not (kind is Prediction.eps and zero)
]
SHAPE = (3, 4, 5, 2, 2)
Network = Callable[[Tensor, Tensor], Tensor]


def network(x: Tensor, t: Tensor) -> Tensor:
    """Something that depends on both and is not small."""
    return (0.7 * x.roll(1, -1) + 0.2 * t).tanh()


def sampled(diffusion: Diffusion, x: Tensor, steps: int, predict: Network = network) -> Tensor:
    grid = diffusion.grid(steps)
    for t, u in zip(grid[:-1], grid[1:], strict=True):
        x = diffusion.step(x, predict(x, t), t.expand(len(x)), u.expand(len(x)))
    return x


@pytest.mark.parametrize("config", ALL, ids=str)
def test_latents_and_noise_are_recovered_from_the_target(config: DiffusionConfig) -> None:
    diffusion = diffusion_of(config, SIZE)
    z, noise = torch.randn(SHAPE, dtype=torch.double), torch.randn(SHAPE, dtype=torch.double)
    for t in (torch.tensor([0.01, 0.4, 1.0]), torch.rand(3, 4) * 0.98 + 0.01):
        x, out = diffusion.noised(z, noise, t), diffusion.target(z, noise, t)
        found = diffusion.recover(x, out, t)
        torch.testing.assert_close(found, (z, noise), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(diffusion.step(x, out, t, t / 2), diffusion.noised(z, noise, t / 2))


@pytest.mark.parametrize("config", ALL, ids=str)
def test_time_0_is_the_latents_and_time_1_is_noise(config: DiffusionConfig) -> None:
    diffusion = diffusion_of(config, SIZE)
    z, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    assert torch.equal(diffusion.noised(z, noise, torch.zeros(3)), z)
    signal, _ = diffusion.shares(torch.ones(1))
    none_left = config.zero_snr or config.kind is Prediction.flow
    assert (signal.item() == 0) == none_left, "no signal at the end means exactly none"
    assert torch.equal(diffusion.noised(z, noise, torch.ones(3)), noise) == none_left


@pytest.mark.parametrize("kind", [Prediction.v, Prediction.flow])
def test_the_prediction_is_the_slope_of_the_path(kind: Prediction) -> None:
    """Of v by the angle, a quarter of a circle for the whole of time."""
    diffusion = diffusion_of(DiffusionConfig(kind, zero_snr=True), SIZE)
    z, noise, h = torch.randn(SHAPE, dtype=torch.double), torch.randn(SHAPE, dtype=torch.double), 1e-5
    t = torch.rand(3, dtype=torch.double) * 0.9 + 0.05
    slope = (diffusion.noised(z, noise, t + h) - diffusion.noised(z, noise, t - h)) / (2 * h)
    per_time = torch.pi / 2 if kind is Prediction.v else 1
    torch.testing.assert_close(slope, per_time * diffusion.target(z, noise, t), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("config", [config for config in ALL if config.kind is not Prediction.flow], ids=str)
def test_samples_are_those_of_diffusers(config: DiffusionConfig, clip: float | None) -> None:
    from diffusers import DDIMScheduler

    count, steps = 1000, 20
    diffusion = diffusion_of(DiffusionConfig(config.kind, config.schedule, config.zero_snr, 1.0, clip=clip), SIZE)
    signal, _ = diffusion.shares(torch.arange(count + 1, dtype=torch.double) / count)
    betas = 1 - (signal[1:] / signal[:-1]).square()
    theirs = DDIMScheduler(
        count,
        trained_betas=betas.numpy(),
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[config.kind],
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=False,
    )
    theirs.set_timesteps(steps)
    start = torch.randn(SHAPE)
    x = start
    for step in theirs.timesteps:
        x = theirs.step(network(x, (step + 1) / count), step, x).prev_sample
    torch.testing.assert_close(sampled(diffusion, start, steps), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("zero", [False, True])
def test_the_scaled_linear_schedule_is_that_of_diffusers(zero: bool) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=zero
    ).alphas_cumprod.double()
    config = DiffusionConfig(Prediction.v, Schedule.scaled_linear, zero)
    signal, share = diffusion_of(config, SIZE).shares(torch.arange(1, 1001, dtype=torch.double) / 1000)
    torch.testing.assert_close(signal.square(), theirs, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(share.square(), 1 - theirs, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_samples_of_a_flow_are_those_of_diffusers(shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    diffusion, steps = diffusion_of(DiffusionConfig(Prediction.flow, shift=shift), SIZE), 12
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    start = torch.randn(SHAPE)
    x = start
    for step in theirs.timesteps:
        x = theirs.step(network(x, step / 1000), step, x, return_dict=False)[0]
    torch.testing.assert_close(diffusion.grid(steps), theirs.sigmas, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sampled(diffusion, start, steps), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", ALL, ids=str)
def test_a_right_prediction_gives_the_latents_in_any_number_of_steps(config: DiffusionConfig) -> None:
    diffusion, z = diffusion_of(config, SIZE), torch.randn(SHAPE, dtype=torch.double)
    start = torch.randn(SHAPE, dtype=torch.double)
    x = diffusion.noised(z, start, torch.ones(3))

    def right(at: Tensor, t: Tensor) -> Tensor:
        return diffusion.target(z, start, t.double().expand(len(at)))

    for steps in (1, 7):
        torch.testing.assert_close(sampled(diffusion, x, steps, right), z, atol=1e-6, rtol=1e-6)


def test_one_time_a_video_is_the_same_time_for_every_frame() -> None:
    diffusion = diffusion_of(DiffusionConfig(Prediction.v), SIZE)
    z, noise, t = torch.randn(SHAPE), torch.randn(SHAPE), torch.rand(3)
    for method in (diffusion.noised, diffusion.target, diffusion.recover):
        torch.testing.assert_close(method(z, noise, t), method(z, noise, t[:, None].expand(3, 4)))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shift_moves_times_to_the_noise_and_leaves_the_ends(shift: float) -> None:
    diffusion = Flow(lambda t: (1 - t, t), shift)
    u = torch.linspace(0, 1, 101)
    t = diffusion.times(u)
    assert t[0] == 0 and t[-1] == 1 and bool((t.diff() > 0).all())
    assert t[50] == pytest.approx(shift / (shift + 1))
    torch.testing.assert_close(diffusion.grid(100), t.flip(0), atol=1e-6, rtol=1e-6)


def test_the_default_shift_grows_with_the_values_of_a_frame() -> None:
    sizes = {2 * 10: 1.0, 8 * 24: 4.0, 8 * 16 * 12: 11.0, 4 * 32 * 32: 18.0, 1: 1.0}
    assert {size: shift_by_size(size) for size in sizes} == sizes
    assert diffusion_of(DiffusionConfig(), 192).shift == 4
    assert diffusion_of(DiffusionConfig(shift=2.5), 192).shift == 2.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"zero_snr": True}, r"kind=eps with diffusion\.zero_snr=true: the last step has no signal.*diffusion=v"),
        ({"shift": 0.0}, r"diffusion\.shift=0\.0: use a number above 0"),
        ({"shift": float("inf")}, r"diffusion\.shift=inf: use a number above 0"),
        ({"steps": 0}, r"diffusion\.steps=0: use 1 or more"),
        ({"clip": -1.0}, r"diffusion\.clip=-1\.0: use a number above 0, or null"),
    ],
)
def test_what_is_no_diffusion_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiffusionConfig(**words)
