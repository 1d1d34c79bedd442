"""The outer loss of an episode: its revisits, denoised with what was learned before them (Section 3.3)."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from common.errors import UserError
from slowfast_vgen.diffusion.diffusion import Diffusion
from slowfast_vgen.episodes import Seen
from slowfast_vgen.memory import Memory, TempLora
from slowfast_vgen.noise import Noise, chosen, normal, strata
from slowfast_vgen.objective import denoising_loss
from slowfast_vgen.settings import OuterConfig
from slowfast_vgen.worlds.episode import LOOP, NEW, REPLAY, RETURN


def targets(episodes: Seen, config: OuterConfig, seed: int, step: int) -> list[int]:
    """The chunks that an outer step counts, one for each draw of noise; which ones is drawn for the whole step.

    Raises:
        UserError: the episodes have none of the phases that are asked for.
    """
    found: list[int] = []
    for names, draws in (((REPLAY,), config.replay), ((RETURN, LOOP), config.returns), ((NEW,), config.new)):
        if there := episodes.of(names):
            keys = Noise(seed, "outer", "pick", *names).keys(("all",), step, 0, draws)[0]
            found += [there[place] for place in chosen(keys, len(there)).tolist()]
    if not found:
        raise UserError(
            f"outer.families={config.families} with outer.length={config.length}: episodes of "
            f"{', '.join(dict.fromkeys(episodes.phases))} chunks alone, and outer.replay={config.replay}, "
            f"outer.returns={config.returns}, outer.new={config.new} count none of them; use [out_and_back]"
        )
    return found


def outer_loss(
    network: nn.Module,
    diffusion: Diffusion,
    episodes: Seen,
    memories: list[Memory] | None,
    chunks: list[int],
    seed: int,
    shift: float = 1.0,
) -> Tensor:
    """Eq. 2 of the chunks, each with the memory before it; the mean over episodes and chunks, shape [].

    Args:
        network, diffusion: as `denoising_loss` takes them.
        episodes: in truth.
        memories: Theta before each chunk; None: no adapter.
        chunks: which ones count, each as often as it stands there, with noise of its own.
        seed: of noise and times.
        shift: of the times.
    """
    drawn = {what: Noise(seed, "outer", what).keys(episodes.ids, 0, 0, len(chunks)) for what in ("noise", "time")}
    u = strata(drawn["time"].T).T.to(episodes.z)  # over episodes: every chunk sees all times
    t = diffusion.times(shifted(u, shift))
    groups: dict[int, list[int]] = defaultdict(list)  # chunks that are generated with the same memory, together
    for place, chunk in enumerate(chunks):
        groups[0 if memories is None else id(memories[chunk])].append(place)
    total = episodes.z.new_zeros(())
    for places in groups.values():
        numbers = [chunks[place] for place in places]
        pasts = [episodes.past(chunk) for chunk in numbers]
        z = torch.stack(
            [torch.cat([past, episodes.z[:, chunk]], 1) for past, chunk in zip(pasts, numbers, strict=True)], 1
        )
        noise = normal(drawn["noise"][:, places], z.shape[2:]).to(z)
        action = episodes.actions[:, numbers].flatten()
        clean = (torch.arange(z.shape[2], device=z.device) < pasts[0].shape[1]).expand(len(action), -1)
        weights = None if memories is None else memories[numbers[0]].weights
        losses = denoising_loss(
            network, diffusion, z.flatten(0, 1), action, clean, t[:, places].flatten(), noise.flatten(0, 1), weights
        )
        total = total + losses.sum()
    return total / (len(episodes.ids) * len(chunks))


def shifted(u: Tensor, shift: float) -> Tensor:
    """Times in [0, 1], more of them near 1 the larger the shift."""
    return shift * u / (1 + (shift - 1) * u)


def calibrate(lora: TempLora, episodes: Seen, move: float) -> None:
    """Let every learned rate begin where the first step moves its tensor by `move` in root mean square."""
    chunk = episodes.of((NEW,))[0]
    gradients = lora.first_gradient(
        lora.start(episodes.ids), episodes.past(chunk), episodes.z[:, chunk], episodes.actions[:, chunk]
    )
    with torch.no_grad():
        for name, gradient in gradients.items():
            size = gradient.square().mean().sqrt().clamp(min=1e-12)
            lora.rates.numbers[lora.rates.row[name]] = (move / size).log()
