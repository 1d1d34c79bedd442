"""Generate or read episodes, count and show them, and say what a model could get right without learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slowfast_vgen.worlds.config import DataConfig

if TYPE_CHECKING:
    from slowfast_vgen.worlds.episode import World


def world_of(config: DataConfig) -> World:
    """The world that the settings describe."""
    if config.world == "maze":
        from slowfast_vgen.worlds.maze import Maze

        return Maze(config.maze, config.shape)
    from slowfast_vgen.worlds.rooms import Rooms

    return Rooms(config.rooms, config.shape)
