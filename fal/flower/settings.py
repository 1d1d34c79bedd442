"""The configuration of a federation as a file, which server and nodes read."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig, OmegaConf

from common.run.environment import device_for, revision
from common.run.results import config_hash
from common.run.schema import plain, to_typed
from fal import data
from fal.build import Parts, build
from fal.config import TrainConfig
from fal.flower.messages import Card


@dataclass(frozen=True)
class Settings:
    """Of one side of a federation."""

    config: TrainConfig

    @cached_property
    def parts(self) -> Parts:
        """What the configuration builds."""
        return build(self.config, device_for(self.config.runtime), getattr(torch, self.config.runtime.dtype.name))

    def card(self, clients: Iterable[int]) -> Card:
        """Who has these settings and `clients`."""
        return Card(config_hash(plain(self.config), TrainConfig), code(), list(clients))


def read(path: Path) -> Settings:
    """Those of a file.

    Raises:
        UserError: it is damaged, or the data are not there.
    """
    config = to_typed(cast(DictConfig, OmegaConf.load(path)), TrainConfig)
    return Settings(replace(config, data=data.available(config.data)))


def code() -> str:
    """Version and revision of this code."""
    try:
        package = version("innerloop")
    except PackageNotFoundError:
        package = "not installed"
    commit, changed = revision()
    return f"innerloop {package}, revision {commit[:12]}{', changed' if changed else ''}"
