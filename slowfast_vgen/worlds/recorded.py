"""Recordings as a world: clips and stretches of frames that somebody filmed, with what was asked for at each moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from slowfast_vgen.actions import NULL, Actions
from slowfast_vgen.worlds.config import Shape
from slowfast_vgen.worlds.draws import Draws, Ints
from slowfast_vgen.worlds.episode import (
    CLIPS,
    NO_REVISIT,
    UNKNOWN,
    Episodes,
    Frames,
    check_asked,
    ids_of,
    phases_of,
)


@dataclass(frozen=True)
class Recording:
    """Consecutive frames."""

    name: str
    frames: Frames
    """[frames, height, width, 3]"""
    asked: Ints
    """The action of a chunk that begins with each frame [frames]."""
    starts: NDArray[np.bool_]
    """Where a chunk may begin [frames]."""


class Recorded:
    """Recordings of each split, as `slowfast_vgen.worlds.episode.World`.

    Clips draw the action first, each as often, then a place where it was asked for: most of a drive goes straight on.
    Episodes are stretches as they were filmed. Nothing says which place a frame shows.
    """

    families: tuple[str, ...] = (NO_REVISIT,)

    def __init__(self, actions: Actions, splits: Mapping[str, Sequence[Recording]], shape: Shape) -> None:
        """Raises UserError where a recording is shorter than two chunks."""
        self.actions, self.splits = actions, splits
        self.height, self.width, self.chunk = shape
        for recording in (each for some in splits.values() for each in some):
            if len(recording.frames) < 2 * self.chunk:
                raise UserError(
                    f"{recording.name}: {len(recording.frames)} frames, and two chunks are {2 * self.chunk}; use a "
                    "longer recording, more frames a second or a smaller data.chunk"
                )

    def clips(self, seed: int, split: str, first: int, count: int, chunks: int = 2) -> Episodes:
        """Clips [count, chunks] whose second chunk's action is drawn, each that occurs as often."""
        where, at = self._places(split, self.chunk, chunks - 1)
        asked = np.array([self.splits[split][r].asked[s] for r, s in zip(where.tolist(), at.tolist(), strict=True)])
        order = np.argsort(asked, kind="stable")
        present, begins, counts = np.unique(asked[order], return_index=True, return_counts=True)
        items, draws = np.arange(first, first + count), Draws(seed, split, CLIPS, "where")
        kind = draws.integers(items, len(present), 0)
        within = (draws.floats(items, 1) * counts[kind]).astype(np.int64)
        chosen = order[begins[kind] + within]
        return self._cut(split, CLIPS, items, where[chosen], at[chosen] - self.chunk, chunks)

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Stretches of length + 1 chunks; places and gaps are unknown.

        Raises:
            UserError: another family, or no recording of the split is as long.
        """
        check_asked(self.families, family, length)
        where, at = self._places(split, 0, length + 1)
        items = np.arange(first, first + count)
        chosen = Draws(seed, split, family, "where").integers(items, len(at))
        return self._cut(split, family, items, where[chosen], at[chosen], length + 1)

    def through(self, split: str, count: int, chunks: int = 2) -> tuple[Episodes, tuple[str, ...]]:
        """At most `count` clips [chunks], evenly spread over what a split's recordings hold; and the moment, a chunk
        long, that each hangs on.

        Raises:
            UserError: no recording of the split is as long.
        """
        where, at = self._places(split, 0, chunks)
        chosen = np.linspace(0, len(at) - 1, min(count, len(at))).round().astype(np.int64)
        where, at = where[chosen], at[chosen]
        found = self._cut(split, "through", np.arange(len(at)), where, at, chunks)
        names = [self.splits[split][number].name for number in where.tolist()]
        return found, tuple(f"{name}/{start // self.chunk}" for name, start in zip(names, at.tolist(), strict=True))

    def asked(self, split: str) -> Ints:
        """The action of each chunk that could begin in a split's recordings: as often as it was asked for."""
        return np.concatenate(
            [each.asked[: len(each.frames) - self.chunk + 1][each.starts[: len(each.frames) - self.chunk + 1]]
             for each in self.splits[split]]
        )  # fmt: skip

    def look(self, frames: Frames) -> Ints:
        """There is no catalogue: -1 for each frame."""
        return np.full(len(frames), UNKNOWN, np.int64)

    def _places(self, split: str, before: int, chunks: int) -> tuple[Ints, Ints]:
        """Recordings and frames where `chunks` chunks can begin and `before` frames lie before."""
        found = []
        for number, recording in enumerate(self.splits[split]):
            at = np.flatnonzero(recording.starts)
            at = at[(at >= before) & (at + chunks * self.chunk <= len(recording.frames))]
            found.append(np.stack([np.full_like(at, number), at]))
        where, at = np.concatenate(found, 1)
        if not len(at):
            longest = max((len(each.frames) for each in self.splits[split]), default=0)
            raise UserError(
                f"the {split} split's longest recording has {longest} frames, and {before + chunks * self.chunk} are "
                "asked for; use shorter episodes, longer recordings or a smaller data.chunk"
            )
        return where, at

    def _cut(self, split: str, family: str, items: Ints, where: Ints, at: Ints, chunks: int) -> Episodes:
        """Chunks of the recordings `where` [n] from the frames `at` [n] on."""
        recordings = self.splits[split]
        begins = at[:, None] + self.chunk * np.arange(chunks)
        frames = [recordings[r].frames[s : s + chunks * self.chunk] for r, s in zip(where, at, strict=True)]
        unknown = np.full(begins.shape, UNKNOWN, np.int64)
        return Episodes(
            frames=np.stack(frames).reshape(len(items), chunks, self.chunk, self.height, self.width, 3),
            actions=np.array([recordings[r].asked[row] for r, row in zip(where, begins, strict=True)]),
            places=unknown,
            looks=unknown,
            gaps=unknown,
            phases=phases_of(unknown),
            ids=ids_of(split, family, items),
        )


def most(asked: Ints, chunk: int) -> Ints:
    """The action of most frames of each chunk that begins with each frame [frames]; the earlier named of equals.

    Chunks that would go beyond the end count the frames there are.
    """
    count = int(asked.max(initial=NULL)) + 1
    sums = np.zeros((len(asked) + chunk, count), np.int64)
    sums[: len(asked)] = asked[:, None] == np.arange(count)
    running = np.concatenate([np.zeros((1, count), np.int64), sums.cumsum(0)])
    return (running[chunk : chunk + len(asked)] - running[: len(asked)]).argmax(1)
