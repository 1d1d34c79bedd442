"""Say how large the denoiser and its adapter are, and what a step of each kind of learning holds in memory.

python -m slowfast_vgen.model +experiment=rooms scale=cpu
python -m slowfast_vgen.model data.height=256 data.width=256 data.chunk=16 slow.batch=2   the paper's backbone
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.schema import to_typed
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.latents.grid import grid_of
from slowfast_vgen.networks.config import Kind, ModelConfig

if TYPE_CHECKING:
    from torch import nn

ConfigStore.instance().store(name="slowfast_vgen_schema", node=TrainConfig)  # each paper its own: tests load several


class Positions(Protocol):
    """Where latents lie: numbers at each of height x width positions."""

    @property
    def values(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


class Actions(Protocol):
    """What a denoiser knows of them: ids from 0, which is none, and their words."""

    @property
    def count(self) -> int: ...

    def text(self, id: int) -> str: ...


def build(config: ModelConfig, latents: Positions, actions: Actions, seed: int) -> nn.Module:
    """The network of the settings, a function of them and the seed; the global generator stays as it is.

    Raises:
        UserError: pretrained weights are not there, or are for other latents.
    """
    import torch

    from slowfast_vgen.networks import unet3d
    from slowfast_vgen.networks.factored import Factored

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # no device's: layers are made on the CPU
        if config.kind is Kind.factored:
            return Factored(config, latents.values, latents.height, latents.width, actions.count)
        if config.path is None:
            return unet3d.fresh(config, latents.values, actions.count)
        return unet3d.pretrained(config, latents.values, [actions.text(id) for id in range(actions.count)])


@dataclass(frozen=True)
class Numbered:
    """Actions without words, where sizes alone are asked for."""

    count: int = 3

    def text(self, id: int) -> str:
        """Nothing."""
        return ""


def skeleton(config: ModelConfig, latents: Positions) -> nn.Module:
    """The network's shapes on torch's meta device; pretrained weights are not looked for."""
    import torch

    with torch.device("meta"):
        return build(replace(config, path=None), latents, Numbered(), 0)


@entry("pkg://conf.slowfast_vgen")
def main(cfg: DictConfig) -> None:
    """Print sizes and memory."""
    from slowfast_vgen.sizes import report

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    height, width, _ = config.data.shape
    grid = grid_of(config.latents, height, width)
    sys.stdout.write(report(skeleton(config.model, grid), config, grid))


if __name__ == "__main__":
    main()
