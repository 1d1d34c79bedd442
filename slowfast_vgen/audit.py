"""What a world holds, and what could be got right in it without learning: counts, overlap, copying, the window."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.data.splits import SPLITS
from common.errors import UserError
from slowfast_vgen.metrics.pixels import psnr
from slowfast_vgen.worlds.episode import NO_REVISIT, REPLAY, START, UNKNOWN, Episodes, World
from slowfast_vgen.worlds.recorded import Recorded

CLIPS, COPIED, EPISODES = 1000, 256, 32
"""Items of a split that are looked at: clips for their actions, the first of them for copying, episodes."""
LENGTH = 2
"""Chunks out, of families that come back; of others 1, so that short recordings serve."""


@dataclass(frozen=True)
class SplitAudit:
    """Of one split."""

    counts: Mapping[str, int]
    """Action -> chunks it leads into: of a recording all that are in it, else the second ones of clips."""
    copied: float
    """PSNR in dB of taking a clip's last frame before the chunk for all of it, the mean over clips."""
    inside: Mapping[str, float | None]
    """Family -> share of chunks after the first whose place the window still shows; None: places are unknown."""
    prints: frozenset[bytes]
    """Of the frames of each episode of the longest family: short ones may look alike by chance."""

    @property
    def frequent(self) -> tuple[str, float]:
        """The most frequent action, and its share."""
        name = max(self.counts, key=lambda each: self.counts[each])
        return name, self.counts[name] / sum(self.counts.values())


def audit(world: World, seed: int, split: str) -> SplitAudit:
    """Look at clips and episodes of a split.

    Raises:
        UserError: the split cannot be read.
    """
    clips = world.clips(seed, split, 0, CLIPS)
    asked = world.asked(split) if isinstance(world, Recorded) else clips.actions[:, 1]
    counts = np.bincount(asked, minlength=world.actions.count)
    episodes = of_families(world, seed, split)
    longest = max(episodes.values(), key=lambda each: each.chunks)
    return SplitAudit(
        counts={world.actions.text(id) or "(none)": int(count) for id, count in enumerate(counts) if count},
        copied=float(copied(clips.at(range(COPIED))).mean()),
        inside={family: inside_window(found) for family, found in episodes.items()},
        prints=frozenset(hashlib.sha256(each.tobytes()).digest() for each in longest.frames),
    )


def of_families(world: World, seed: int, split: str, count: int = EPISODES) -> dict[str, Episodes]:
    """Family -> its first episodes; without the families that a split has none of.

    Raises:
        UserError: it has none at all.
    """
    found, refused = {}, None
    for family in world.families:
        try:
            found[family] = world.episodes(seed, split, family, 1 if family == NO_REVISIT else LENGTH, 0, count)
        except UserError as error:  # of recordings that are too short, or come back nowhere
            refused = error
    if not found and refused is not None:
        raise refused
    return found


def copied(clips: Episodes) -> np.ndarray:
    """PSNR in dB [clips] of the last frame before the last chunk against all of that chunk."""
    wanted, last = clips.frames[:, -1], clips.frames[:, -2, -1:]
    return psnr(np.broadcast_to(last, wanted.shape), wanted)


def inside_window(episodes: Episodes) -> float | None:
    """Share of the chunks after the first that show what the chunk before still does; None where no place is known."""
    if (episodes.places == UNKNOWN).all():
        return None
    names = [name for row in episodes.phases for name in row if name != START]
    return names.count(REPLAY) / len(names)


def overlaps(splits: Mapping[str, SplitAudit]) -> dict[tuple[str, str], int]:
    """Episodes that two splits share, for each two of those looked at."""
    pairs = [(a, b) for place, a in enumerate(SPLITS) for b in SPLITS[place + 1 :]]
    return {(a, b): len(splits[a].prints & splits[b].prints) for a, b in pairs}
