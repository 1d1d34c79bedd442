"""Rooms: the viewer turns on the spot inside a ring of panels, each with one picture of a catalogue.

The field of view is one panel, a chunk turns by one, so a chunk ends on one panel and shows nothing of the next before
it is asked for: beyond its window a model without memory names the picture no better than one of `pictures` by chance.
Which picture hangs where is drawn anew for each episode; the catalogue is the same for all splits, and what divides
them is the layout. Everything is computed in whole columns, so a retraced path shows the same bits.

    clips           a random walk
    out_and_back    c0 ... cm, then back r1 ... rm: r_k has gap 2k - 2
    turn            on round the full circle, and m panels come again: all with gap panels - 2
    new             c0 ... cm, no panel twice
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from slowfast_vgen.actions import paired
from slowfast_vgen.worlds.catalogue import catalogue
from slowfast_vgen.worlds.config import RoomsConfig, Shape
from slowfast_vgen.worlds.draws import Draws, Ints, kept, ringed
from slowfast_vgen.worlds.episode import CLIPS, NO_REVISIT, OUT_AND_BACK, TURN, Episodes, Frames, check_asked
from slowfast_vgen.worlds.walk import Route, episodes_of

ACTIONS = paired(("turn left", "turn right"))
LEFT, RIGHT = 1, 2
SKY, FLOOR = (120, 160, 215), (90, 75, 60)


class Rooms:
    """The world of a configuration, as `slowfast_vgen.worlds.episode.World`."""

    actions = ACTIONS
    families: tuple[str, ...] = (OUT_AND_BACK, TURN, NO_REVISIT)

    def __init__(self, config: RoomsConfig, shape: Shape) -> None:
        self.height, self.width, self.chunk = shape
        self.panels = config.panels
        walls = catalogue(config.pictures, self.height - 2, self.width)
        self.pictures: Frames = np.empty((config.pictures, self.height, self.width, 3), np.uint8)
        """The views of one panel each [pictures, height, width, 3]."""
        self.pictures[:, 0], self.pictures[:, -1], self.pictures[:, 1:-1] = SKY, FLOOR, walls
        self._columns = np.ascontiguousarray(self.pictures.swapaxes(1, 2)).reshape(-1, self.height, 3)
        self._keys = f"data.rooms.panels={config.panels}, data.rooms.pictures={config.pictures}"

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Random walks [count, chunks]."""
        items = np.arange(first, first + count)
        draws = Draws(seed, split, CLIPS, "turns")
        turns = 2 * draws.integers(items[:, None], 2, np.arange(chunks)) - 1
        return self._episodes(seed, split, CLIPS, items, turns)

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Episodes that go `length` chunks out; `turn` comes to so many panels again.

        Raises:
            UserError: another family, or a length that the ring has no panels for.
        """
        most = self.panels if family == TURN else self.panels - 2
        check_asked(self.families, family, length, most, f"data.rooms.panels={self.panels}")
        items = np.arange(first, first + count)
        way = 2 * Draws(seed, split, family, "way").integers(items, 2) - 1
        steps = {
            OUT_AND_BACK: [1] * (length + 1) + [-1] * length,
            TURN: [1] * (self.panels + length),
            NO_REVISIT: [1] * (length + 1),
        }
        return self._episodes(seed, split, family, items, way[:, None] * np.array(steps[family]))

    def look(self, frames: Frames) -> Ints:
        """The nearest picture [n] in the mean square over all but the outermost eighths of a frame's columns."""
        edge = self.width // 8
        seen = frames[:, :, edge : self.width - edge].reshape(len(frames), -1).astype(np.float32)
        known = self.pictures[:, :, edge : self.width - edge].reshape(len(self.pictures), -1).astype(np.float32)
        return ((known**2).sum(1) - 2 * seen @ known.T).argmin(1).astype(np.int64)

    def follow(self, seed: int, split: str, family: str, items: Ints, start: Ints, actions: Ints) -> Ints:
        """Panels [n, k] after each of `actions` [n, k] from `start` [n]; the layout bars no way."""
        turns = np.select([actions == LEFT, actions == RIGHT], [-1, 1], 0)
        return (start[:, None] + turns.cumsum(1)) % self.panels

    def distance(self, places: Ints, others: Ints) -> NDArray[np.float64]:
        """Panels between places, the short way round."""
        apart = np.abs(places - others)
        return np.minimum(apart, self.panels - apart).astype(np.float64)

    def render(self, layouts: Ints, turned: Ints) -> Frames:
        """Frames [episodes, frames, height, width, 3] of layouts [episodes, panels].

        Args:
            turned: what the left edge of the view points at [episodes, frames], in parts of a panel of which there are
                `chunk`; multiples of `chunk` face a panel.
        """
        column = turned[..., None] * self.width // self.chunk + np.arange(self.width)
        panel = column // self.width % self.panels
        picture = np.take_along_axis(layouts, panel.reshape(len(layouts), -1), 1).reshape(panel.shape)
        found = self._columns[picture * self.width + column % self.width]
        return np.ascontiguousarray(found.swapaxes(-3, -2))

    def layouts(self, seed: int, split: str, family: str, items: Ints) -> Ints:
        """Which picture hangs where [items, panels]: such that the ring, however it is turned, belongs to `split`."""
        draws, panels = Draws(seed, split, family, "layout"), np.arange(self.panels)

        def make(some: Ints, attempt: int) -> Ints:
            return draws.integers(some[:, None], len(self.pictures), attempt * self.panels + panels)

        return kept(make, contents, items, split, self._keys)

    def _episodes(self, seed: int, split: str, family: str, items: Ints, turns: Ints) -> Episodes:
        """Episodes whose chunks turn by `turns` [items, chunks], -1 to the left and 1 to the right."""
        layouts = self.layouts(seed, split, family, items)
        start = Draws(seed, split, family, "start").integers(items, self.panels)[:, None]
        places = np.concatenate([start, start + turns.cumsum(1)], 1) % self.panels
        turned = places[:, :-1, None] * self.chunk + turns[..., None] * np.arange(1, self.chunk + 1)
        frames = self.render(layouts, turned.reshape(len(items), -1))
        return episodes_of(
            Route(np.where(turns > 0, RIGHT, LEFT), places),
            frames.reshape(*turns.shape, self.chunk, *frames.shape[2:]),
            np.take_along_axis(layouts, places[:, 1:], 1),
            self.panels,
            split,
            family,
            items,
            wide=self.chunk > 1,
        )


def contents(layouts: Ints) -> Iterable[str]:
    """What decides the split of each layout [n, panels]."""
    return [f"rooms/{text}" for text in ringed(layouts)]
