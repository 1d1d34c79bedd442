"""Generate or read episodes, count and show them, and say what a model could get right without learning.

python -m slowfast_vgen.data +experiment=rooms                       no file needed
python -m slowfast_vgen.data +experiment=driving data.root=<folder>  recorded laps
python -m slowfast_vgen.data +experiment=folder data.folder.path=<folder>   your own recordings, each with a sidecar
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.data.dataroot import ROOT_VARIABLE, is_there
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.schema import to_typed
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.worlds.config import MNIST, DataConfig

if TYPE_CHECKING:
    from slowfast_vgen.worlds.episode import World


logger = logging.getLogger(__name__)
ConfigStore.instance().store(name="slowfast_vgen_schema", node=TrainConfig)  # each paper its own: tests load several


def available(config: DataConfig) -> DataConfig:
    """The settings; where MNIST's files are not there, those of drawn glyphs in their place, with a warning.

    A run takes these for its own before it is hashed, so that it is never found as one on the real digits.
    """
    digits = config.digits
    if config.world != "digits" or digits.source == "glyphs" or all(is_there(config.root, name) for name in MNIST):
        return config
    logger.warning(
        "data.digits.source=mnist: its files are not below data.root=%s; drawn glyphs take its place, and no number is "
        "one on MNIST; set data.root or %s to the folder that holds %s", config.root, ROOT_VARIABLE, MNIST[0],
    )  # fmt: skip
    return replace(config, digits=replace(digits, source="glyphs", stands_for=digits.source))


def world_of(config: DataConfig) -> World:
    """The world that the settings describe.

    Raises:
        UserError: a file that it reads is missing or damaged.
    """
    if config.world == "maze":
        from slowfast_vgen.worlds.maze import Maze

        return Maze(config.maze, config.shape)
    if config.world == "table":
        from slowfast_vgen.worlds.table import Table

        return Table(config.table, config.shape)
    if config.world == "digits":
        from slowfast_vgen.worlds.digits import Digits

        return Digits(config.digits, config.shape, config.root)
    if config.world == "driving":
        from slowfast_vgen.worlds.driving import Driving

        return Driving(config.driving, config.shape, config.root)
    if config.world == "folder":
        from slowfast_vgen.recordings import opened

        return opened(config)
    from slowfast_vgen.worlds.rooms import Rooms

    return Rooms(config.rooms, config.shape)


@entry("pkg://conf.slowfast_vgen")
def main(cfg: DictConfig) -> None:
    """Print what is in the episodes, and draw some."""
    from slowfast_vgen.preview import show

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    data = available(config.data)
    show(world_of(data), data, Path(config.loop.root))


if __name__ == "__main__":
    main()
