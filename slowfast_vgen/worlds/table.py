"""Table: cubes and a green area seen from above, moved by a gripper (world B of the sheet, 7.3; after RLBench).

Where a cube stood at first is known from the episode alone, so to bring it back needs memory. The first chunk stands
still. A place is a spot: where a cube stood at first, or its own in the green area. The gripper is seen while it
carries, not in a chunk's last frame, and pixels are whole numbers, so a way back shows the same bits.

    clips           random commands; every second takes back the one before
    out_and_back    m cubes to the green area, then back in reverse: the k-th has gap 2k - 2
    turn            m cubes to the green area, then others where they were
    new             m cubes to the green area
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slowfast_vgen.actions import NULL, Actions
from slowfast_vgen.metrics.pixels import unit
from slowfast_vgen.worlds.config import CUBES, Shape, TableConfig
from slowfast_vgen.worlds.draws import Draws, Ints, kept
from slowfast_vgen.worlds.episode import (
    CLIPS,
    LOOP,
    NO_REVISIT,
    OUT_AND_BACK,
    RETURN,
    TURN,
    UNKNOWN,
    Episodes,
    Frames,
    check_asked,
    gaps_of,
    ids_of,
    phases_of,
)

GRID = 5
"""Spots along each side of the table; the green area is two by two of them."""
WOOD, GREEN, GRIPPER = (196, 168, 128), (70, 170, 80), (235, 235, 235)
INKS = {"black": (25, 25, 30), "pink": (235, 110, 170), "blue": (50, 80, 220), "yellow": (240, 210, 50)}
STILL, AWAY, BACK = 0.25, 0.3, 0.5
"""Of clips: how often the first chunk stands still, a cube begins in the green area, a command takes back."""

Command = tuple[int, int]
"""A cube and the spot it comes to: below the number of cubes where that cube stood at first, else in the green area."""


def commands(cubes: Sequence[str]) -> Actions:
    """What can be asked: for each cube the green area and back, then each in the place of each other."""
    out, back = (
        [text.format(cube) for cube in cubes]
        for text in ("move the {} cube to the green area", "return the {} cube to its place")
    )
    puts = [f"put the {a} cube where the {b} cube was" for a in cubes for b in cubes if a != b]
    inverses = dict(zip((*out, *back), (*back, *out), strict=True))
    return Actions((*out, *back, *puts), inverses)


class Table:
    """The world of a configuration, as `slowfast_vgen.worlds.episode.World`."""

    families: tuple[str, ...] = (OUT_AND_BACK, TURN, NO_REVISIT)

    def __init__(self, config: TableConfig, shape: Shape) -> None:
        self.height, self.width, self.chunk = shape
        self.cubes = CUBES[: config.cubes]
        self.actions = commands(self.cubes)
        self._size = max(2, min(self.height, self.width) // GRID - 1)

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Random commands [count, chunks]."""
        return self._episodes(seed, split, CLIPS, chunks, np.arange(first, first + count))

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Episodes that take `length` cubes away.

        Raises:
            UserError: another family, or more cubes than there are.
        """
        check_asked(self.families, family, length, len(self.cubes), f"data.table.cubes={len(self.cubes)}")
        return self._episodes(seed, split, family, length, np.arange(first, first + count))

    def look(self, frames: Frames) -> Ints:
        """There is no catalogue: -1 for each frame."""
        return np.full(len(frames), UNKNOWN, np.int64)

    def read(self, frames: ArrayLike) -> Ints:
        """The spot at which each cube is seen in frames [n, height, width, 3]: [n, cubes], as row * GRID + column.

        It is where the colours are nearest to the cube's, so that every frame has an answer.
        """
        shown = unit(frames)
        rows, columns = np.divmod(np.arange(GRID**2), GRID)
        up, left = self._pixel(rows, self.height), self._pixel(columns, self.width)
        where = self._inside(up, left, up + self._size, left + self._size).reshape(GRID**2, -1) / self._size**2
        inks = np.array([INKS[name] for name in self.cubes]) / 255
        off = ((shown[:, None] - inks[:, None, None]) ** 2).mean(-1).reshape(len(shown), len(self.cubes), -1)
        return (off @ where.T).argmin(-1)

    def moved(self, actions: Ints) -> Ints:
        """Which cube each action moves, by the order of `commands`; -1 for none."""
        count = len(self.cubes)
        put = (actions - 1 - 2 * count) // (count - 1)
        return np.select([actions == NULL, actions <= 2 * count], [UNKNOWN, (actions - 1) % count], put)

    def distance(self, places: Ints, others: Ints) -> NDArray[np.float64]:
        """Spots between spots of the grid, as the crow flies."""
        (row, column), (other_row, other_column) = (np.divmod(each, GRID) for each in (places, others))
        return np.hypot(row - other_row, column - other_column)

    def layouts(self, seed: int, split: str, family: str, items: Ints) -> Ints:
        """Where the green area's upper left spot is and then the cubes are [items, 1 + cubes], as row * GRID + column.

        They decide the split.
        """
        draws, spots = Draws(seed, split, family, "layout"), np.arange(GRID**2)

        def make(some: Ints, attempt: int) -> Ints:
            number = attempt * (GRID**2 + 1)
            row, column = np.divmod(draws.integers(some, (GRID - 1) ** 2, number), GRID - 1)
            order = draws.floats(some[:, None], number + 1 + spots)
            for down, right in np.ndindex(2, 2):
                order[np.arange(len(some)), (row + down) * GRID + column + right] = 2
            return np.concatenate([(row * GRID + column)[:, None], order.argsort(1)[:, : len(self.cubes)]], 1)

        return kept(make, contents, items, split, f"data.table.cubes={len(self.cubes)}")

    def _episodes(self, seed: int, split: str, family: str, length: int, items: Ints) -> Episodes:
        layouts = self.layouts(seed, split, family, items)
        numbers = Draws(seed, split, family, "commands").floats(items[:, None], np.arange(2 * length + len(self.cubes)))
        plan = self._random if family == CLIPS else self._family(family)
        planned = [plan(row, length) for row in numbers.tolist()]
        at = np.array([standing for standing, _ in planned])  # [items, chunks + 1, cubes]
        asked = [chunks for _, chunks in planned]
        places = np.array([[UNKNOWN if each is None else each[1] for each in row] for row in asked])
        spots = np.arange(2 * len(self.cubes))
        shown = (at[..., None] == spots).any(2)
        gaps = gaps_of(places, shown[:, :-1] | shown[:, 1:])
        return Episodes(
            frames=self._render(layouts, at),
            actions=np.array([[NULL if each is None else self._id(*each) for each in row] for row in asked]),
            places=places,
            looks=np.full_like(places, UNKNOWN),
            gaps=gaps,
            phases=phases_of(gaps, LOOP if family == TURN else RETURN),
            ids=ids_of(split, family, items),
        )

    def _id(self, cube: int, spot: int) -> int:
        if spot >= len(self.cubes):
            return 1 + cube
        if spot == cube:
            return 1 + len(self.cubes) + cube
        return self.actions.id(f"put the {self.cubes[cube]} cube where the {self.cubes[spot]} cube was")

    def _random(self, numbers: list[float], chunks: int) -> tuple[list[list[int]], list[Command | None]]:
        """Where the cubes stand before the first chunk and after each, and the commands."""
        count, draw = len(self.cubes), iter(numbers)
        here = [cube + count * (next(draw) < AWAY) for cube in range(count)]
        at, asked = [here], list[Command | None]()
        for chunk in range(chunks):
            undo, choice = next(draw), next(draw)
            last = asked[-1] if asked else None
            if not chunk and undo < STILL:
                asked.append(None)
            elif last and undo < BACK:
                asked.append((last[0], at[-2][last[0]]))
            else:
                spots = [(cube, spot) for cube in range(count) for spot in (*range(count), count + cube)]
                free = [(cube, spot) for cube, spot in spots if spot not in here]
                asked.append(free[int(choice * len(free))])
            here = _after(here, asked[-1])
            at.append(here)
        return at, asked

    def _family(self, family: str):
        def plan(numbers: list[float], length: int) -> tuple[list[list[int]], list[Command | None]]:
            count = len(self.cubes)
            order = sorted(range(count), key=lambda cube: numbers[cube])
            taken = order[:length]
            asked: list[Command | None] = [None, *((cube, count + cube) for cube in taken)]
            if family == OUT_AND_BACK:
                asked += [(cube, cube) for cube in reversed(taken)]
            elif family == TURN:  # each spot gets the cube taken before; a lone one's a cube that stayed
                others = [taken[-1], *taken[:-1]] if length > 1 else order[1:2]
                asked += [(other, spot) for other, spot in reversed(list(zip(others, taken, strict=True)))]
            at = [list(range(count))]
            for each in asked:
                at.append(_after(at[-1], each))
            return at, asked

        return plan

    def _render(self, layouts: Ints, at: Ints) -> Frames:
        """Frames [items, chunks, frames, height, width, 3] of cubes that stand at spots [items, chunks + 1, cubes]."""
        zone = layouts[:, :1]
        slots = zone + np.array([(0, 1, GRID, GRID + 1)[cube] for cube in range(len(self.cubes))])
        spot = np.take_along_axis(np.concatenate([layouts[:, 1:], slots], 1), at.reshape(len(at), -1), 1)
        row, column = np.divmod(spot.reshape(at.shape), GRID)
        corner = np.stack([self._pixel(row, self.height), self._pixel(column, self.width)], -1)
        within = np.arange(1, self.chunk + 1)[:, None, None]
        begins, ends = corner[:, :-1, None], corner[:, 1:, None]
        corners = (begins * (self.chunk - within) + ends * within) // self.chunk  # the same from both ends
        frames = np.empty((*corners.shape[:3], self.height, self.width, 3), np.uint8)
        frames[:] = WOOD
        rows, columns = np.divmod(zone[..., None], GRID)
        up, left = self._pixel(rows, self.height), self._pixel(columns, self.width)
        down, right = (self._pixel(part + 1, size) for part, size in ((rows, self.height), (columns, self.width)))
        _paint(frames, self._inside(up, left, down + self._size, right + self._size), GREEN)
        carried = (begins != ends).any(-1) & (within < self.chunk)[..., 0]
        for cube, name in enumerate(self.cubes):
            y, x = corners[:, :, :, cube, 0], corners[:, :, :, cube, 1]
            _paint(frames, self._inside(y, x, y + self._size, x + self._size), INKS[name])
        y, x = np.moveaxis(corners + (self._size - 1) // 2, -1, 0)
        held = self._inside(y, x, y + 1, x + 1) & carried[..., None, None]
        _paint(frames, held.any(3), GRIPPER)
        return frames

    def _pixel(self, place: Ints, pixels: int) -> Ints:
        """The first pixel of a cube in a row or column of spots."""
        return ((2 * place + 1) * pixels - GRID * self._size) // (2 * GRID)

    def _inside(self, up: Ints, left: Ints, down: Ints, right: Ints) -> np.ndarray:
        """Which pixels [..., height, width] are in rectangles [...]."""
        y, x = np.arange(self.height)[:, None], np.arange(self.width)
        up, left, down, right = (each[..., None, None] for each in (up, left, down, right))
        return (y >= up) & (y < down) & (x >= left) & (x < right)


def contents(layouts: Ints) -> list[str]:
    """What decides the split of each layout."""
    return [f"table/{row}" for row in layouts.tolist()]


def _paint(frames: Frames, where: np.ndarray, colour: tuple[int, int, int]) -> None:
    frames[np.broadcast_to(where, frames.shape[:-1])] = colour


def _after(here: list[int], command: Command | None) -> list[int]:
    if command is None:
        return here
    return [command[1] if cube == command[0] else spot for cube, spot in enumerate(here)]
