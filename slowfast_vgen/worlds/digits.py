"""Digits: a Moving-MNIST whose motion is commanded, on a torus of cells with one digit each.

A frame shows one cell, a chunk moves the digits by one, so that as in `rooms` nothing of the next is seen before.
The digits are MNIST's from `data.root` (LeCun, Cortes and Burges), train and dev split from its training file and the
test split from its test file; or ten drawn glyphs, the catalogue, whose layout then decides the split.
Moving-MNIST: Srivastava, Mansimov and Salakhutdinov 2015.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from common.data import idx
from common.data.dataroot import find
from slowfast_vgen.actions import paired
from slowfast_vgen.worlds.config import MNIST, REMEDY, DigitsConfig, Shape
from slowfast_vgen.worlds.draws import Draws, Ints, kept, ringed
from slowfast_vgen.worlds.episode import CLIPS, NO_REVISIT, OUT_AND_BACK, TURN, UNKNOWN, Episodes, Frames, check_asked
from slowfast_vgen.worlds.walk import Route, episodes_of, straight, there_and_back, wander

ACTIONS = paired(("move up", "move down"), ("move left", "move right"))
MOVES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
"""Action, from 0 -> rows and columns by which the view moves, against the digits."""
BACK = 1 / 3
CANVAS = 32
"""Side of what a digit is drawn on; MNIST's 28 pixels stand in its middle."""
DEV = 10000
"""The last images of the training file are the dev split's."""
SEGMENTS = {"a": (4, 4, 8, 24), "b": (4, 20, 17, 24), "c": (15, 20, 28, 24), "d": (24, 4, 28, 24), "e": (15, 4, 28, 8),
            "f": (4, 4, 17, 8), "g": (14, 4, 18, 24)}  # fmt: skip
"""Name -> top, left, bottom, right."""
GLYPHS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


class Digits:
    """The world of a configuration, as `slowfast_vgen.worlds.episode.World`."""

    actions = ACTIONS
    families: tuple[str, ...] = (OUT_AND_BACK, TURN, NO_REVISIT)

    def __init__(self, config: DigitsConfig, shape: Shape, root: str | None = None) -> None:
        """Raises UserError where a file of MNIST is missing or damaged."""
        self.height, self.width, self.chunk = shape
        self.side, self.places = config.side, config.side**2
        self._catalogue = config.source == "glyphs"
        if self._catalogue:
            self._pools = dict.fromkeys(("train", "dev", "test"), self._fitted(glyphs()))
        else:
            train, test = (idx.array(find(root, name, REMEDY), 3) for name in MNIST)
            self._pools = {"train": train[:-DEV], "dev": train[-DEV:], "test": test}

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Random walks [count, chunks]; every third step takes back the one before."""
        return self._episodes(seed, split, CLIPS, chunks, np.arange(first, first + count))

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Episodes that go `length` chunks out, past no digit twice; `turn` comes to so many digits again.

        Raises:
            UserError: another family, or a length that the torus has no cells for.
        """
        most = self.side if family == TURN else self.places // 2
        check_asked(self.families, family, length, most, f"data.digits.side={self.side}")
        return self._episodes(seed, split, family, length, np.arange(first, first + count))

    def look(self, frames: Frames) -> Ints:
        """The nearest glyph [n] in mean square; -1 for MNIST, which is no catalogue."""
        if not self._catalogue:
            return np.full(len(frames), UNKNOWN, np.int64)
        seen = frames.mean(-1).reshape(len(frames), -1)
        known = self._pools["test"].reshape(len(GLYPHS), -1).astype(float)
        return ((known**2).sum(1) - 2 * seen @ known.T).argmin(1)

    def layouts(self, seed: int, split: str, family: str, items: Ints) -> Ints:
        """Which image of the split's stands where [items, cells]."""
        draws, cells = Draws(seed, split, family, "layout"), np.arange(self.places)

        def make(some: Ints, attempt: int) -> Ints:
            return draws.integers(some[:, None], len(self._pools[split]), attempt * self.places + cells)

        if not self._catalogue:
            return make(items, 0)
        return kept(make, self.contents, items, split, f"data.digits.side={self.side}")

    def contents(self, layouts: Ints) -> Iterable[str]:
        """What decides the split of each layout of glyphs: the same however the torus is moved."""
        cells = np.arange(self.places).reshape(self.side, self.side)
        moved = [np.roll(cells, (row, column), (0, 1)).ravel() for row, column in np.ndindex(cells.shape)]
        return [f"digits/{text}" for text in ringed(layouts, np.array(moved))]

    def _episodes(self, seed: int, split: str, family: str, length: int, items: Ints) -> Episodes:
        layouts = self.layouts(seed, split, family, items)
        draws = Draws(seed, split, family, "way")
        start = Draws(seed, split, family, "start").integers(items, self.places)
        weights = (1.0,) * len(MOVES)
        if family == TURN:
            action = 1 + draws.integers(items, len(MOVES))
            route = straight(start, action, self.side + length, self._neighbours)
        elif family == CLIPS:
            route = wander(start, length, self._neighbours, ACTIONS, draws, items, weights, back=BACK)
        else:
            route = wander(start, length + 1, self._neighbours, ACTIONS, draws, items, weights, self.places)
            route = there_and_back(route, ACTIONS) if family == OUT_AND_BACK else route
        hung = np.take_along_axis(layouts, route.places[:, 1:], 1)
        looks = hung if self._catalogue else np.full_like(hung, UNKNOWN)
        frames = self._render(self._pools[split], layouts, route)
        return episodes_of(route, frames, looks, self.places, split, family, items, wide=self.chunk > 1)

    def _neighbours(self, places: Ints) -> Ints:
        row, column = (part[:, None] + move for part, move in zip(np.divmod(places, self.side), MOVES.T, strict=True))
        return row % self.side * self.side + column % self.side

    def _render(self, pool: Frames, layouts: Ints, route: Route) -> Frames:
        images, where = np.unique(layouts, return_inverse=True)
        fitted = pool[images] if self._catalogue else self._fitted(pool[images])
        hung, moves = where.reshape(layouts.shape), MOVES[route.actions - 1]
        begins = np.stack(np.divmod(route.places[:, :-1], self.side), -1)
        turned = begins[:, :, None] * self.chunk + moves[:, :, None] * np.arange(1, self.chunk + 1)[:, None]
        turned = turned.reshape(len(layouts), -1, 2)
        row = turned[..., :1] * self.height // self.chunk + np.arange(self.height)
        column = turned[..., 1:] * self.width // self.chunk + np.arange(self.width)
        cell = (row // self.height % self.side * self.side)[..., None] + (column // self.width % self.side)[:, :, None]
        shown = hung[np.arange(len(layouts))[:, None, None, None], cell]
        grey = fitted[shown, (row % self.height)[..., None], (column % self.width)[:, :, None]]
        return np.repeat(grey[..., None], 3, -1).reshape(*route.actions.shape, self.chunk, self.height, self.width, 3)

    def _fitted(self, images: Frames) -> Frames:
        """Images [n, 28, 28] at the size of a frame [n, height, width]."""
        edge = (CANVAS - images.shape[1]) // 2
        wide = np.pad(images, ((0, 0), (edge, edge), (edge, edge)))
        if (self.height, self.width) == (CANVAS, CANVAS):
            return wide
        box = Image.Resampling.BOX
        return np.stack([np.asarray(Image.fromarray(each).resize((self.width, self.height), box)) for each in wide])


def glyphs() -> Frames:
    """The ten digits [10, 28, 28] in seven segments."""
    found = np.zeros((len(GLYPHS), 28, 28), np.uint8)
    for number, name in enumerate(GLYPHS):
        for segment in name:
            top, left, bottom, right = SEGMENTS[segment]
            found[number, top - 2 : bottom - 2, left:right] = 255
    return found
