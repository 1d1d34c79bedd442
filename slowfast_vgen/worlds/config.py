"""The keys below `data`: which world, how large its frames and chunks are."""

from dataclasses import dataclass, field
from typing import NamedTuple

from common.data.packed import Bounds
from common.data.splits import SPLITS
from common.errors import UserError
from common.fields import UNHASHED


class Shape(NamedTuple):
    """Pixels of a frame and frames of a chunk."""

    height: int
    width: int
    chunk: int


SHAPES = {
    "rooms": {"small": Shape(8, 16, 2), "large": Shape(16, 32, 4)},
    "maze": {"small": Shape(16, 16, 4), "large": Shape(32, 32, 4)},
    "table": {"small": Shape(16, 16, 4), "large": Shape(32, 32, 4)},
    "digits": {"small": Shape(16, 16, 4), "large": Shape(32, 32, 4)},
    "driving": {"small": Shape(16, 32, 4), "large": Shape(32, 64, 4)},
    "folder": {"small": Shape(16, 32, 4), "large": Shape(32, 64, 4)},
}
"""World -> size -> shape."""
MNIST = ("mnist/train-images-idx3-ubyte", "mnist/t10k-images-idx3-ubyte")
REMEDY = "use a generated world (data=rooms)"
"""Where files are missing."""
DRIVING = ("driving_sim/session_a.npz", "driving_sim/session_b_first.npz")
CUBES = ("black", "pink", "blue", "yellow")


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
class TableConfig:
    """Cubes and a green area, from above."""

    cubes: int = 4
    """The first of black, pink, blue, yellow."""

    def __post_init__(self) -> None:
        """Refuse a number of cubes that has no colours.

        Raises:
            UserError: it has none.
        """
        if not 2 <= self.cubes <= len(CUBES):
            raise UserError(f"data.table.cubes={self.cubes}: use 2 to {len(CUBES)}")


@dataclass
class DigitsConfig:
    """Digits on a torus."""

    source: str = "mnist"
    """mnist or glyphs, which need no file."""
    side: int = 4
    """Cells along each direction of the torus."""
    stands_for: str = ""
    """The source in whose place glyphs are used, because its files are not there: set by `slowfast_vgen.data`."""

    def __post_init__(self) -> None:
        """Refuse a torus without a way round.

        Raises:
            UserError: it has none, or the source is unknown.
        """
        if self.source not in ("mnist", "glyphs"):
            raise UserError(f"data.digits.source={self.source}: use mnist or glyphs")
        if not 3 <= self.side <= 16:
            raise UserError(f"data.digits.side={self.side}: use 3 to 16")


@dataclass
class DrivingConfig:
    """Laps in a simulator."""

    every: int = 4
    """Of the 6.4 frames a second each so many-th is taken: 4 are 0.6 seconds."""
    steering: float = 0.05
    """Mean steering of a chunk, from 0 to 1, below which it goes straight."""
    stopped: float = 1.0
    """Mean speed in miles an hour below which a chunk stands."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a number out of range.
        """
        if not 1 <= self.every <= 32:
            raise UserError(f"data.driving.every={self.every}: use 1 to 32")
        if not 0 < self.steering < 1:
            raise UserError(f"data.driving.steering={self.steering}: use a value between 0 and 1")
        if self.stopped < 0:
            raise UserError(f"data.driving.stopped={self.stopped}: use 0 or more")


@dataclass
class FolderConfig:
    """Anybody's recordings."""

    path: str | None = None
    """Folder of the recordings, as it is or below `data.root`."""
    fps: float = 4.0
    """Frames a second that a model sees: recordings are resampled."""
    source_fps: float | None = None
    """Frames a second of recordings that do not say: folders of images, and .npz without `times`."""
    actions: list[str] = field(default_factory=list)
    """All that a sidecar may ask for; empty takes what the sidecars have."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "dev": 0.1, "test": 0.1})
    """Of the recordings, by split: a recording is in one split as a whole."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a number of frames a second that is not positive, or shares that are not of the three splits.
        """
        if sorted(self.shares) != sorted(SPLITS) or min(self.shares.values()) <= 0 or sum(self.shares.values()) > 1.001:
            raise UserError(
                f"data.folder.shares={dict(self.shares)}: give {', '.join(SPLITS)} shares above 0 that sum to 1"
            )
        for key in ("fps", "source_fps"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise UserError(f"data.folder.{key}={value:g}: use more than 0 frames a second")


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
    table: TableConfig = field(default_factory=TableConfig)
    digits: DigitsConfig = field(default_factory=DigitsConfig)
    driving: DrivingConfig = field(default_factory=DrivingConfig)
    folder: FolderConfig = field(default_factory=FolderConfig)
    root: str | None = field(default=None, metadata=UNHASHED)
    """Folder of real data; default: the environment variable INNERLOOP_DATA."""
    bounds: Bounds = field(default_factory=Bounds, metadata=UNHASHED)

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
