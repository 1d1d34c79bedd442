"""What `python -m slowfast_vgen.model` prints, from the settings alone: no data and no pretrained weights are read."""

from __future__ import annotations

from torch import nn

from common.run.environment import pick_device
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.counting import FLOAT, MOMENTS, Hollow, Work, counted, hollow, memory
from slowfast_vgen.diffusion.diffusion import diffusion_of
from slowfast_vgen.latents.config import Kind as Autoencoder
from slowfast_vgen.latents.grid import Grid
from slowfast_vgen.networks.config import Kind

PUBLISHED = 352e6
"""Bytes that fast learning took more in the paper (Table 3)."""
SECONDS, AT_VALUES, AT_WEIGHTS = 14.0, 4 * 16 * 32 * 32, 1.9e6
"""CPU seconds of a training step of UNet3D on 4 clips of 16 frames of 32 x 32 pixels, and its weights: measured on one
core before this code was there."""


def work_of(config: TrainConfig) -> Work:
    """How much is learned in one step of each kind."""
    return Work(
        chunk=config.data.shape.chunk,
        clips=config.slow.batch,
        draws=config.fast.draws,
        steps=config.fast.steps,
        episodes=config.outer.episodes,
        length=config.outer.length,
        unroll=config.inner.unroll,
    )


def report(network: nn.Module, config: TrainConfig, grid: Grid) -> str:
    """The text for the terminal; `network` may be without data, and is of no other use afterwards.

    Raises:
        UserError: `fast.layers` matches no layer, or the device is not there.
    """
    fast = config.fast
    shape = hollow(network, config.model.kind, grid, fast.rank, fast.layers, "A" in fast.weights)
    lines = [*_network(config, shape), *_adapter(config, shape), *_diffusion(config, grid), *_memory(config, shape)]
    if warning := too_slow(config, grid, shape.weights):
        lines.append(("warning", warning))
    column = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:{column}}{text}".rstrip() + "\n" for name, text in lines)


def too_slow(config: TrainConfig, grid: Grid, weights: int) -> str | None:
    """What a UNet on pixels costs where there is no GPU; None if that is not asked for."""
    pixels = config.latents.kind is Autoencoder.pixels and config.model.kind is not Kind.factored
    if not pixels or pick_device(config.runtime.device).type != "cpu":
        return None
    positions = config.slow.batch * 2 * config.data.shape.chunk * grid.height * grid.width
    seconds = SECONDS * positions / AT_VALUES * weights / AT_WEIGHTS
    return (
        f"UNet3D on pixels is not for a CPU: about {seconds:.2g} s a step of slow learning, by {SECONDS:g} s measured "
        "for 4 clips of 16 frames of 32x32 with 1.9 million weights; use latents=patches, or model=factored_tiny"
    )


def _network(config: TrainConfig, shape: Hollow) -> list[tuple[str, str]]:
    grid = shape.grid
    frames = f"clips of {2 * config.data.shape.chunk} frames"
    where = f"{grid.values} values at {grid.height}x{grid.width} positions"
    return [
        ("network", f"model.kind={config.model.kind}, {frames}, {where}"),
        ("weights", f"{shape.weights:,} ({_size(FLOAT * shape.weights)} in float32)"),
        ("temporal", f"{shape.timed:,} of them see more than one frame ({shape.timed / shape.weights:.1%})"),
    ]


def _adapter(config: TrainConfig, shape: Hollow) -> list[tuple[str, str]]:
    own = counted(shape.fast)
    held = FLOAT * own * (1 + MOMENTS)
    return [
        ("adapter", f"rank {config.fast.rank}: {own:,} fast weights in {len(shape.fast)} matrices"),
        ("", f"{_size(held)} with Adam's state, {_size(held + FLOAT * own)} with its gradient"),
        ("", f"the paper's fast learning takes {_size(PUBLISHED)} more (Table 3)"),
    ]


def _diffusion(config: TrainConfig, grid: Grid) -> list[tuple[str, str]]:
    shift = diffusion_of(config.diffusion, grid.size).shift
    source = f"by {grid.size:,} latent values a frame" if config.diffusion.shift is None else "as it was set"
    return [("shift", f"{shift:g}, {source}")]


def _memory(config: TrainConfig, shape: Hollow) -> list[tuple[str, str]]:
    work = work_of(config)
    found = memory(shape, work)
    clips = f"{work.clips} clips"
    return [
        ("memory", "of one step at its peak in float32, weights and Adam's state included; estimated"),
        ("  slow", f"{_size(found.slow)}  {clips}"),
        ("  fast", f"{_size(found.fast)}  one episode, {work.draws} draws of noise"),
        ("  loop", f"{_size(found.loop)}  {clips}, each with the memory of its episode"),
        (
            "  meta",
            f"{_size(found.meta)}  {work.episodes} episodes, through {work.length * work.steps} fast steps "
            f"(inner.unroll={work.unroll})",
        ),
    ]


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
