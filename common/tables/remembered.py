"""Hydra's files of configuration, read once for all jobs of a table: it reads them anew for each."""

import copy
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.config_source import ConfigResult


class Remembered(CachingConfigRepository):
    """As its delegate; each use gets a copy of what was read. For jobs that search the same folders."""

    def __init__(self, delegate: IConfigRepository) -> None:
        super().__init__(delegate)
        self.read: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """The content of one file, None if there is none."""
        if config_path not in self.read:
            self.read[config_path] = self.delegate.load_config(config_path=config_path)
        return copy.deepcopy(self.read[config_path])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Remembered":
        """For one job: folders of its own to search, and what was read for all."""
        found = Remembered(self.delegate)
        found.read = self.read
        return found


def remember(loader: ConfigLoader) -> None:
    """Let `loader` read each file once."""
    loader.repository = Remembered(loader.repository)  # type: ignore[attr-defined]
