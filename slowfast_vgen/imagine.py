"""Episodes whose every chunk but the first is generated, with fast learning on what was generated (Algorithm 1a)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import Seen
from slowfast_vgen.noise import Noise, normal
from slowfast_vgen.sampler import roll_out, sample
from slowfast_vgen.worlds.episode import NEW


def imagined(parts: Parts, config: TrainConfig, episodes: Seen, *, every: bool = False, learning: bool = True) -> Seen:
    """The same episodes as the model lives them from their first chunk; with its own memories if it has an adapter.

    `every` writes after every chunk, also on the way back; `learning=False` never does.
    """
    noise = Noise(config.seed, "imagined")
    memory = [parts.lora.start(episodes.ids)] if parts.lora.attached and learning else []

    def generate(past: Tensor, action: Tensor, chunk: int) -> Tensor:
        drawn = normal(noise.keys(episodes.ids, chunk)[:, 0], episodes.z.shape[2:]).to(past)
        weights = memory[-1].weights if memory else None
        return sample(
            parts.network, parts.diffusion, past, action, drawn,
            steps=config.diffusion.steps, guidance=config.evaluation.guidance, weights=weights,
        )  # fmt: skip

    def learn(past: Tensor, new: Tensor, action: Tensor, chunk: int) -> None:
        if memory and (every or episodes.phases[chunk] == NEW or config.fast.on_return):
            memory.append(parts.lora.write(memory.pop(), past, new, action))

    chunks = roll_out(generate, episodes.z[:, 0], episodes.actions[:, 1:], learn, episodes.keep)
    return replace(episodes, z=torch.stack(list(chunks), 1))
