"""Maze: free walking among textured blocks, seen from within (world A of the sheet, 7.3).

A chunk goes one cell or turns by 45 degrees; each action has an exact inverse, and poses are whole numbers of a chunk's
frames, so a retraced path shows the same bits. Blocks, faces and floor are drawn anew for each episode, and they decide
its split. A place is a pose (cell and heading). Its neighbours show parts of the same walls, so unlike in `rooms` a gap
does not say that the window holds nothing of the place.

    clips           a random walk; every third step takes back the one before
    out_and_back    a random way, no pose twice, and back
    turn            round on the spot, eight chunks, and on
    new             a random way, no pose twice
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from slowfast_vgen.actions import paired
from slowfast_vgen.worlds.catalogue import catalogue
from slowfast_vgen.worlds.config import MazeConfig, Shape
from slowfast_vgen.worlds.draws import Draws, Ints, kept
from slowfast_vgen.worlds.episode import (
    CLIPS,
    NO_REVISIT,
    OUT_AND_BACK,
    TURN,
    UNKNOWN,
    Episodes,
    Frames,
    check_asked,
)
from slowfast_vgen.worlds.raycast import directions, draw
from slowfast_vgen.worlds.walk import Route, episodes_of, straight, there_and_back, wander

ACTIONS = paired(("turn left", "turn right"), ("go forward", "go back"), ("step left", "step right"))
TURNS = np.array([-1, 1, 0, 0, 0, 0])
MOVES = {2: 0, 3: 4, 4: 6, 5: 2}
"""Action, from 0 -> in eighths of a circle from the heading where it goes; y grows to the right of x."""
WEIGHTS = (1.5, 1.5, 3.0, 0.5, 0.75, 0.75)
BACK = 1 / 3
HEADINGS = 8
AROUND = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
"""Heading -> cell ahead."""
TEXTURES, TEXELS = 32, 16


class Maze:
    """The world of a configuration, as `slowfast_vgen.worlds.episode.World`."""

    actions = ACTIONS
    families: tuple[str, ...] = (OUT_AND_BACK, TURN, NO_REVISIT)

    def __init__(self, config: MazeConfig, shape: Shape) -> None:
        self.height, self.width, self.chunk = shape
        self.side, self._share = config.side, config.blocks
        self.places = self.side**2 * HEADINGS
        self._textures: Frames = catalogue(TEXTURES, TEXELS, TEXELS)
        self._directions = directions(HEADINGS * self.chunk)

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Random walks [count, chunks]."""
        return self._episodes(seed, split, CLIPS, chunks, np.arange(first, first + count))

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Episodes that go `length` chunks out; `turn` comes to so many headings again.

        Raises:
            UserError: another family, or a length below 1.
        """
        check_asked(self.families, family, length)
        return self._episodes(seed, split, family, length, np.arange(first, first + count))

    def look(self, frames: Frames) -> Ints:
        """There is no catalogue: -1 for each frame."""
        return np.full(len(frames), UNKNOWN, np.int64)

    def maps(self, seed: int, split: str, family: str, items: Ints) -> Ints:
        """Maps [items, side * side, 5]: whether there is a block, and the textures of its four faces. The cells around
        the middle are free."""
        draws, cells = Draws(seed, split, family, "map"), np.arange(self.side**2)
        x, y = np.divmod(cells, self.side)
        rim = (x % (self.side - 1) == 0) | (y % (self.side - 1) == 0)
        free = (abs(x - self.side // 2) <= 1) & (abs(y - self.side // 2) <= 1)

        def make(some: Ints, attempt: int) -> Ints:
            number = attempt * 5 * len(cells) + 5 * cells
            blocks = (draws.floats(some[:, None], number) < self._share) & ~free | rim
            faces = draws.integers(some[:, None, None], TEXTURES, number[:, None] + np.arange(1, 5))
            return np.concatenate([blocks[..., None].astype(np.int64), faces], -1)

        keys = f"data.maze.side={self.side}, data.maze.blocks={self._share}"
        return kept(make, contents, items, split, keys)

    def follow(self, seed: int, split: str, family: str, items: Ints, start: Ints, actions: Ints) -> Ints:
        """Poses [n, k] after each of `actions` [n, k] from `start` [n]; where a block bars the way nothing moves."""
        blocks = self.maps(seed, split, family, items)[:, :, 0]
        here, rows, found = start, np.arange(len(items)), []
        for action in actions.T:
            to = np.where(action > 0, self._neighbours(blocks, here)[rows, action - 1], UNKNOWN)
            here = np.where(to == UNKNOWN, here, to)
            found.append(here)
        return np.stack(found, 1)

    def distance(self, places: Ints, others: Ints) -> NDArray[np.float64]:
        """Cells between poses, whatever their headings."""
        (x, y), (other_x, other_y) = (np.divmod(each // HEADINGS, self.side) for each in (places, others))
        return np.hypot(x - other_x, y - other_y)

    def _episodes(self, seed: int, split: str, family: str, length: int, items: Ints) -> Episodes:
        maps = self.maps(seed, split, family, items)
        draws, middle = Draws(seed, split, family, "way"), self.side // 2
        heading = Draws(seed, split, family, "start").integers(items, HEADINGS)
        start = (middle * self.side + middle) * HEADINGS + heading

        def neighbours(places: Ints) -> Ints:
            return self._neighbours(maps[:, :, 0], places)

        if family == TURN:
            route = straight(start, 1 + draws.integers(items, 2), HEADINGS + length, neighbours)
        elif family == CLIPS:
            route = wander(start, length, neighbours, ACTIONS, draws, items, WEIGHTS, back=BACK)
        else:
            route = wander(start, length + 1, neighbours, ACTIONS, draws, items, WEIGHTS, self.places)
            route = there_and_back(route, ACTIONS) if family == OUT_AND_BACK else route
        looks = np.full(route.actions.shape, UNKNOWN, np.int64)
        return episodes_of(
            route, self._render(seed, split, family, items, maps, route), looks, self.places, split, family, items, True
        )

    def _neighbours(self, blocks: Ints, places: Ints) -> Ints:
        """Where each action leads from poses [n]; a way over a corner needs the cells on both sides."""
        cell, heading = np.divmod(places, HEADINGS)
        rows = np.arange(len(places))
        found = np.empty((len(places), len(TURNS)), np.int64)
        found[:] = (cell * HEADINGS)[:, None] + (heading[:, None] + TURNS) % HEADINGS
        for action, eighths in MOVES.items():
            dx, dy = AROUND[(heading + eighths) % HEADINGS].T
            to = cell + dx * self.side + dy
            passed = (to, cell + dx * self.side, cell + dy)
            blocked = np.any([blocks[rows, each] for each in passed], 0)
            found[:, action] = np.where(blocked, UNKNOWN, to * HEADINGS + heading)
        return found

    def _render(self, seed: int, split: str, family: str, items: Ints, maps: Ints, route: Route) -> Frames:
        cell, heading = np.divmod(route.places, HEADINGS)
        at = np.stack([*np.divmod(cell, self.side), heading], -1)
        change = np.diff(at, axis=1)
        change[..., 2] = (change[..., 2] + 1) % HEADINGS - 1  # the short way round
        within = np.arange(1, self.chunk + 1)[:, None]
        pose = (at[:, :-1, None] * self.chunk + change[:, :, None] * within).reshape(len(items), -1, 3)
        position = pose[..., :2] / self.chunk + 0.5
        towards = self._directions[pose[..., 2] % (HEADINGS * self.chunk)]
        colours = Draws(seed, split, family, "floor").integers(items[:, None], 60, np.arange(6)).reshape(-1, 2, 3)
        floors = colours + np.array([[40], [110]])
        blocks = maps[:, :, 0].reshape(-1, self.side, self.side)
        frames = draw(blocks, maps[:, :, 1:], floors, self._textures, position, towards, self.height, self.width)
        return frames.reshape(*route.actions.shape, self.chunk, *frames.shape[2:])


def contents(maps: Ints) -> Iterable[str]:
    """What decides the split of each map [n, cells, 5]."""
    return [f"maze/{hashlib.sha256(each.astype(np.uint8).tobytes()).hexdigest()}" for each in maps]
