"""The keys below `data`: which world, how large its frames and chunks are."""

from dataclasses import dataclass, field
from typing import NamedTuple

from common.errors import UserError


class Shape(NamedTuple):
    """Pixels of a frame and frames of a chunk."""

    height: int
    width: int
    chunk: int


SHAPES = {
    "rooms": {"small": Shape(8, 16, 2), "large": Shape(16, 32, 4)},
    "maze": {"small": Shape(16, 16, 4), "large": Shape(32, 32, 4)},
}
"""World -> size -> shape."""


@dataclass
class RoomsConfig:
    """A ring of panels around the viewer."""

    panels: int = 8
    """The field of view is one of them."""
    pictures: int = 8
    """Of the catalogue: chance is one of so many."""

    def __post_init__(self) -> None:
        """Refuse a ring that has no way back, or a catalogue that cannot be drawn.

        Raises:
            UserError: a number out of range.
        """
        for key, value, least, most in (("panels", self.panels, 3, 64), ("pictures", self.pictures, 2, 32)):
            if not least <= value <= most:
                raise UserError(f"data.rooms.{key}={value}: use {least} to {most}")


@dataclass
class MazeConfig:
    """Blocks on a grid that is walled all round."""

    side: int = 9
    """Cells, with the wall."""
    blocks: float = 0.3
    """Share of the cells within that have one; those around the start have none."""

    def __post_init__(self) -> None:
        """Refuse a maze without room to walk.

        Raises:
            UserError: a number out of range.
        """
        if not 5 <= self.side <= 31:
            raise UserError(f"data.maze.side={self.side}: use 5 to 31")
        if not 0 <= self.blocks < 1:
            raise UserError(f"data.maze.blocks={self.blocks}: use a share from 0 to below 1")


@dataclass
class DataConfig:
    """Episodes of one world."""

    world: str = "rooms"
    size: str = "small"
    """small or large: sets the three keys below where they are null."""
    height: int | None = None
    """Pixels of a frame."""
    width: int | None = None
    chunk: int | None = None
    """Frames of a chunk."""
    seed: int = 0
    """Of the dev and test episodes. The training seed does not change what is tested."""
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    maze: MazeConfig = field(default_factory=MazeConfig)

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: an unknown world or size, or frames that are too small.
        """
        if self.world not in SHAPES:
            raise UserError(f"data.world={self.world}: use one of {', '.join(SHAPES)}")
        if self.size not in SHAPES[self.world]:
            raise UserError(f"data.size={self.size}: use one of {', '.join(SHAPES[self.world])}")
        for key, value, least in (*zip(Shape._fields, self.shape, (8, 8, 1), strict=True), ("seed", self.seed, 0)):
            if value < least:
                raise UserError(f"data.{key}={value}: use {least} or more")

    @property
    def shape(self) -> Shape:
        """Of the frames: that of the size, where no key says otherwise."""
        given = (self.height, self.width, self.chunk)
        own = SHAPES[self.world][self.size]
        return Shape(*(known if value is None else value for value, known in zip(given, own, strict=True)))
