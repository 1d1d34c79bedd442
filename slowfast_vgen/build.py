"""Configuration to objects: world, autoencoder, denoiser, diffusion, fast learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from common.run.state import Stateful
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.data import world_of
from slowfast_vgen.diffusion.diffusion import Diffusion, diffusion_of
from slowfast_vgen.latents.build import latents_of
from slowfast_vgen.latents.latents import Latents
from slowfast_vgen.latents.patches import Patches
from slowfast_vgen.memory import TempLora
from slowfast_vgen.model import build as network_of
from slowfast_vgen.settings import Stage
from slowfast_vgen.slow import SlowWeights
from slowfast_vgen.worlds.episode import World

FITTED = 1024
"""Training clips whose frames the principal components of patches are those of."""


@dataclass(frozen=True)
class Parts:
    """Of a run."""

    world: World
    latents: Latents
    network: nn.Module
    diffusion: Diffusion
    slow: SlowWeights
    lora: TempLora
    device: torch.device

    @property
    def tracked(self) -> dict[str, Stateful]:
        """Name -> what the selected weights are, in the order in which they are read."""
        return {"latents": self.latents, "slow": self.slow, "fast": self.lora}


def build(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Parts:
    """Everything that a run needs; a function of the configuration.

    Raises:
        UserError: the data or weights are not there, or the parts do not fit together.
    """
    world = world_of(config.data)
    latents = latents_of(config.latents, world.height, world.width)
    if isinstance(latents, Patches):  # the same whatever the training seed
        latents.fit(torch.from_numpy(world.clips(config.data.seed, "train", 0, FITTED).frames))
    latents.to(device)
    network = network_of(config.model, latents, world.actions, config.seed).to(device, dtype)
    diffusion = diffusion_of(config.diffusion, latents.size)
    slow = SlowWeights(network, config.slow.ema)
    outside = config.method.stage is Stage.meta and config.outer.adapter
    lora = TempLora(network, diffusion, config.fast, config.model.kind, config.seed, outside=outside)
    return Parts(world, latents, network, diffusion, slow, lora, device)
