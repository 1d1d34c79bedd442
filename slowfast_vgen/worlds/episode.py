"""What every world makes: episodes of chunks of frames, the action that led into each, and what was seen when.

Chunk 0 is the first one shown; its action led into it as any other chunk's did. A chunk has gap g when g whole chunks
lie between the window's last one, which is the chunk before it, and the last that showed anything of its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from slowfast_vgen.actions import Actions

START, NEW, REPLAY, LOOP, RETURN = "start", "new", "replay", "loop", "return"
"""Phases of a chunk: the first; a place not seen before; one that the window still shows (gap 0); one that was left and
is come back to by another way (a full turn); by the same way."""
CLIPS, OUT_AND_BACK, TURN, NO_REVISIT = "clips", "out_and_back", "turn", "new"
"""Families of episodes."""
UNKNOWN = -1

Frames = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Episodes:
    """Some episodes of one family and length."""

    frames: Frames
    """[episodes, chunks, frames, height, width, 3]"""
    actions: Ints
    """[episodes, chunks]: the action that leads into each chunk; 0 is null."""
    places: Ints
    """[episodes, chunks]: what the last frame of a chunk shows, numbered within the episode; -1: unknown."""
    looks: Ints
    """[episodes, chunks]: which picture of the catalogue hangs there; -1 in a world without one."""
    gaps: Ints
    """[episodes, chunks]: whole chunks since anything of that place was visible; -1: it never was."""
    phases: tuple[tuple[str, ...], ...]
    """[episodes][chunks]"""
    ids: tuple[str, ...]
    """<split>/<family>/<number>"""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def chunks(self) -> int:
        """Chunks of an episode."""
        return self.frames.shape[1]

    def at(self, rows: Sequence[int]) -> "Episodes":
        """Some of them, in this order."""
        taken = np.asarray(rows, np.int64)
        arrays = {name: getattr(self, name)[taken] for name in ("frames", "actions", "places", "looks", "gaps")}
        return replace(
            self, phases=tuple(self.phases[row] for row in taken), ids=tuple(self.ids[row] for row in taken), **arrays
        )


class World(Protocol):
    """A generator or reader of episodes; item `i` of a split is a function of (seed, split, i) alone."""

    actions: Actions
    chunk: int
    """Frames of a chunk."""
    height: int
    width: int
    families: tuple[str, ...]
    """What `episodes` can make."""

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Items `first` to `first + count - 1` of random walks, for slow learning."""
        ...

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Items of a family that goes `length` chunks out.

        Raises:
            UserError: the family is none of `families`, or the length does not fit the world.
        """
        ...

    def look(self, frames: Frames) -> Ints:
        """The nearest picture of the catalogue for each frame [n, height, width, 3]; -1 in a world without one."""
        ...


def gaps_of(places: Ints, visible: NDArray[np.bool_]) -> Ints:
    """Whole chunks since anything of a chunk's place was visible.

    Args:
        places: what each chunk ends on [episodes, chunks]; -1 is unknown and gets gap -1.
        visible: which places each chunk shows anything of [episodes, chunks, places].
    """
    episodes, chunks = places.shape
    found = np.full_like(places, UNKNOWN)
    last = np.full((episodes, visible.shape[2]), UNKNOWN, np.int64)
    rows = np.arange(episodes)
    for chunk in range(chunks):
        seen = last[rows, places[:, chunk]]
        found[:, chunk] = np.where((seen < 0) | (places[:, chunk] < 0), UNKNOWN, chunk - 1 - seen)
        last[visible[:, chunk]] = chunk
    return found


def phases_of(gaps: Ints, revisit: str = RETURN) -> tuple[tuple[str, ...], ...]:
    """The phase of each chunk [episodes, chunks]; `revisit` is what coming back from outside the window is called."""
    names = {UNKNOWN: NEW, 0: REPLAY}
    return tuple((START, *(names.get(gap, revisit) for gap in row[1:])) for row in gaps.tolist())


def ids_of(split: str, family: str, items: Ints) -> tuple[str, ...]:
    """<split>/<family>/<number> of each item."""
    return tuple(f"{split}/{family}/{item}" for item in items.tolist())


def check_asked(families: tuple[str, ...], family: str, length: int, most: int | None = None, why: str = "") -> None:
    """See that a family is known and its length fits.

    Raises:
        UserError: it is not, or does not; `why` names the key that bounds it.
    """
    if family not in families:
        raise UserError(f"family={family}: this world has {', '.join(families)}")
    if length < 1 or (most is not None and length > most):
        bound = "1 or more" if most is None else f"1 to {most}"
        raise UserError(f"length={length} chunks out in family={family}: use {bound}{f' ({why})' if why else ''}")
