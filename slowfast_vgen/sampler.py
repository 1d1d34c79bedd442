"""Generate a chunk from the one before (Section 3.2): latents in, latents out, nothing decoded between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.engine.weights import Weights
from slowfast_vgen.diffusion.diffusion import Diffusion
from slowfast_vgen.objective import predicted

if TYPE_CHECKING:
    from slowfast_vgen.build import Parts
    from slowfast_vgen.config import TrainConfig


def next_chunk(
    parts: Parts, config: TrainConfig, past: Tensor, action: Tensor, noise: Tensor, weights: Weights | None = None
) -> Tensor:
    """New frames as a run's method makes them: a sample of its network, or its last frame again (`method.copies`).

    Arguments and result are those of `sample`.
    """
    if config.method.copies:
        return past[:, -1:].expand_as(noise)
    return sample(
        parts.network,
        parts.diffusion,
        past,
        action,
        noise,
        steps=config.diffusion.steps,
        guidance=config.evaluation.guidance,
        weights=weights,
    )


@torch.no_grad()
def sample(
    network: nn.Module,
    diffusion: Diffusion,
    past: Tensor,
    action: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance: float = 1.0,
    weights: Weights | None = None,
) -> Tensor:
    """New frames after `past`, from pure noise in `steps` steps.

    The past is joined to the noisy frames, clean, at every step; what is predicted for it is thrown away.

    Args:
        network, diffusion, weights: as `slowfast_vgen.objective.denoising_loss` takes them.
        past: clean latents [n, frames given, values, height, width], which are not written to.
        action: int64 [n].
        noise: [n, new frames, values, height, width].
        steps: forward passes; twice as many with guidance.
        guidance: out = null + guidance * (out - null), with `null` of the null action; 1 is none.

    Returns:
        As `noise`.
    """
    given, frames = past.shape[1], past.shape[1] + noise.shape[1]
    clean = (torch.arange(frames, device=past.device) < given).expand(len(past), -1)
    x = noise
    grid = diffusion.grid(steps).to(noise)
    for t, u in zip(grid[:-1], grid[1:], strict=True):
        whole, times = torch.cat([past, x], 1), t.expand(len(past), frames)
        out = predicted(network, whole, times, action, clean, weights)[:, given:]
        if guidance != 1:
            null = predicted(network, whole, times, torch.zeros_like(action), clean, weights)[:, given:]
            out = null + guidance * (out - null)
        x = diffusion.step(x, out, t.expand(len(x)), u.expand(len(x)))
    return x


def roll_out(
    generate: Callable[[Tensor, Tensor, int], Tensor],
    first: Tensor,
    actions: Tensor,
    learn: Callable[[Tensor, Tensor, Tensor, int], None] | None = None,
    given: Callable[[Sequence[Tensor]], Tensor] | None = None,
) -> Sequence[Tensor]:
    """The chunks of episodes, `first` and one for each column of `actions`, each from the one before (Algorithm 1a).

    Args:
        generate: (past [n, frames, ...], action [n], chunk) -> the chunk [n, frames, ...].
        first: latents of chunk 0 [n, frames, values, height, width].
        actions: int64 [n, chunks - 1]: what leads into chunks 1, 2, ...
        learn: called after each chunk with (input, output, action, chunk): fast learning.
        given: the chunks so far -> what the next one is generated from; None: the last of them.
    """
    chunks = [first]
    for number, action in enumerate(actions.unbind(1), 1):
        past = chunks[-1] if given is None else given(chunks)
        chunks.append(generate(past, action, number))
        if learn is not None:
            learn(past, chunks[-1], action, number)
    return chunks
