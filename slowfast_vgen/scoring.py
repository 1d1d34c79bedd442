"""Generated chunks -> items: is the right picture at the place that is come back to, and how near are the pixels?

`place`, `other` and `foreign` share out the generated chunks: the picture that hangs there, another one that this
episode has shown, one that it has not. The same chunk with another memory is `place_swapped`; `gain_swapped` says what
the own memory is better by, in a world without a catalogue in dB of `psnr`. Slices are `place@phase_return`,
`place@gap_2`, and by length, also of lengths that are tested besides, `place@of4_6`: four chunks out, gap 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from common.run.items import Item, OfAll
from common.run.results import Interval
from common.tables.estimates import Jackknife, over_items
from common.tables.intervals import Kind
from common.tables.summary import summarise as summarised
from slowfast_vgen.metrics.pixels import psnr, ssim
from slowfast_vgen.settings import Control
from slowfast_vgen.worlds.episode import UNKNOWN, Episodes, World

FIXED = COPY, CEILING = "copy", "ceiling"
"""PSNR of the last frame before, and of the truth as the autoencoder gives it: no memory changes them."""
IMAGINED = "imagined"
"""Slice of the items of episodes that were generated from their first chunk on."""
SHARES = ("place", "other", "foreign", "consistent", "floor", "alike", "agreement")
"""All else are qualities."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = dict[str, Floats]
"""Metric -> its value for every episode [episodes]."""


def scores_of(world: World, episodes: Episodes, chunk: int, frames: Floats, decoded: Floats) -> Scores:
    """What one generated chunk of every episode is worth: `psnr` in dB, `ssim` times 100, shares from 0 to 1.

    Args:
        world: of the episodes.
        episodes: in truth.
        chunk: which one was generated.
        frames: the generated chunk [episodes, frames, height, width, 3] in [0, 1].
        decoded: the true one as the autoencoder gives it.
    """
    truth = episodes.frames[:, chunk]
    last = np.repeat(episodes.frames[:, chunk - 1, -1:], truth.shape[1], 1)
    pixels = {
        "psnr": psnr(frames, truth),
        "ssim": 100 * ssim(frames, truth),
        COPY: psnr(last, truth),
        CEILING: psnr(decoded, truth),
    }
    wanted = episodes.looks[:, chunk]
    if (wanted == UNKNOWN).any():
        return pixels
    got = looks_of(world, frames[:, -1:])[:, 0]
    shown = (episodes.looks[:, :chunk] == got[:, None]).any(1)
    right = got == wanted
    return {"place": right * 1.0, "other": (shown & ~right) * 1.0, "foreign": (~shown & ~right) * 1.0} | pixels


def looks_of(world: World, frames: Floats) -> Ints:
    """The picture that each frame [episodes, chunks, height, width, 3] in [0, 1] is nearest to [episodes, chunks]."""
    whole = np.round(frames * 255).astype(np.uint8)
    return world.look(whole.reshape(-1, *whole.shape[2:])).reshape(whole.shape[:2])


def items_of(
    episodes: Episodes, chunk: int, scores: Mapping[Control, Scores], length: int, *, longer: bool = False
) -> list[Item]:
    """An item for each episode's chunk.

    Args:
        episodes: in truth.
        chunk: which one was generated.
        scores: with the episode's own memory, and with others.
        length: chunks out, whose slice by gap the items are in.
        longer: it is another length than the test's own, so the items count in that slice alone.
    """
    named = dict(scores[Control.own])
    for control, other in scores.items():
        if control is not Control.own:
            named |= {f"{metric}_{control}": values for metric, values in other.items() if metric not in FIXED}
            judged = "place" if "place" in named else "psnr"
            named[f"gain_{control}"] = named[judged] - other[judged]
    of, found = f"of{length}", []
    for row, name in enumerate(episodes.ids):
        pairs = {metric: (float(values[row]), 1.0) for metric, values in named.items()}
        gap = int(episodes.gaps[row, chunk])
        slices: dict[str, str | int] = {} if longer else {"phase": episodes.phases[row][chunk]}
        if gap != UNKNOWN and not longer:
            slices["gap"] = gap
        if gap != UNKNOWN or longer:
            slices[of] = gap
        number = "/".join([name, *([of] if longer else []), str(chunk)])
        found.append(Item(number, name, pairs, slices, of if longer else ""))
    return found


def imagined_items(episodes: Episodes, looks: Mapping[Control, Ints]) -> list[Item]:
    """An item for each return of an episode that was generated from its first chunk on: is it true to itself?

    `consistent`: the picture is that of the first visit, as generated; `floor`: it is that of another place, the mean
    over all others. A model that shows one picture everywhere is consistent, so `alike` says for two different places
    how often they show the same, and `distinct` how many pictures the way out has.

    Args:
        episodes: in truth; their places say what is a visit of what.
        looks: the picture that each generated chunk ends on [episodes, chunks], with the own memory and with others.
    """
    found = []
    for row, name in enumerate(episodes.ids):
        places = episodes.places[row]
        firsts = {int(place): chunk for chunk, place in reversed(list(enumerate(places.tolist())))}
        for chunk, gap in enumerate(episodes.gaps[row].tolist()):
            if gap < 1:
                continue
            pairs: dict[str, tuple[float, float]] = {}
            for control, each in looks.items():
                shown = {place: int(each[row, first]) for place, first in firsts.items()}
                own, others = int(each[row, chunk]), [p for place, p in shown.items() if place != places[chunk]]
                two = [a == b for a, b in combinations(shown.values(), 2)]
                scores = {
                    "consistent": float(own == shown[int(places[chunk])]),
                    "floor": sum(own == other for other in others) / len(others),
                    "alike": sum(two) / len(two),
                    "distinct": float(len(set(shown.values()))),
                }
                end = "" if control is Control.own else f"_{control}"
                pairs |= {f"{metric}{end}": (value, 1.0) for metric, value in scores.items()}
            found.append(Item(f"{name}/imagined/{chunk}", name, pairs, {IMAGINED: gap}, IMAGINED))
    return found


def summarise(items: Sequence[Item], confidence: float) -> dict[str, Interval]:
    """Every metric with its interval, by phase, gap, and gap of longer episodes."""
    slices = sorted(
        {name for item in items for name in item.slices}, key=lambda name: (name not in ("phase", "gap"), name)
    )
    metrics = dict.fromkeys(metric for item in items for metric in item.scores)
    kinds = {metric: Kind.quality for metric in metrics if metric.split("_")[0] not in SHARES}
    return summarised(items, confidence, by=dict.fromkeys(metrics, slices), kinds=kinds)


def interval_of_all(name: str, found: OfAll, confidence: float) -> Interval:
    """A number of all items with its interval by leaving out one group after the other."""
    low, high = over_items(name, [Jackknife.of(found.value, found.without)]).interval(confidence)
    return Interval(found.value, len(found.without), low, high)
