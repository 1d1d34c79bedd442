"""Generated chunks -> items: is the right picture at the place that is come back to, and how near are the pixels?

`place`, `other` and `foreign` share out the generated chunks: the picture that hangs there, another one that this
episode has shown, one that it has not. The same chunk with another memory is `place_swapped`; `gain_swapped` says what
the own memory is better by. Slices are `place@phase_return`, `place@gap_2`, and of longer episodes `place@of4_6`: four
chunks out, gap 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.run.items import Item
from common.run.results import Interval
from common.tables.intervals import Kind
from common.tables.summary import summarise as summarised
from slowfast_vgen.settings import Control
from slowfast_vgen.worlds.episode import UNKNOWN, Episodes, World

MOST_DB = 100.0
"""Of the PSNR of equal frames, which has no end."""
SHARES = ("place", "other", "foreign")
"""All else are qualities."""

Floats = NDArray[np.float64]
Scores = dict[str, Floats]
"""Metric -> its value for every episode [episodes]."""


def scores_of(world: World, episodes: Episodes, chunk: int, frames: Floats) -> Scores:
    """What one generated chunk of every episode is worth.

    Args:
        world: of the episodes.
        episodes: in truth.
        chunk: which one was generated.
        frames: the generated chunk [episodes, frames, height, width, 3] in [0, 1].
    """
    truth = episodes.frames[:, chunk] / 255.0
    last = np.repeat(episodes.frames[:, chunk - 1, -1:] / 255.0, truth.shape[1], 1)
    found = {"psnr": psnr(frames, truth), "copy": psnr(last, truth)}
    wanted = episodes.looks[:, chunk]
    if (wanted == UNKNOWN).any():
        return found
    got = world.look(np.round(frames[:, -1] * 255).astype(np.uint8))
    shown = (episodes.looks[:, :chunk] == got[:, None]).any(1)
    right = got == wanted
    return found | {"place": right * 1.0, "other": (shown & ~right) * 1.0, "foreign": (~shown & ~right) * 1.0}


def psnr(a: Floats, b: Floats) -> Floats:
    """Of each clip [n, ...] of numbers in [0, 1], in decibels [n]."""
    error = np.square(a - b).reshape(len(a), -1).mean(1)
    return np.minimum(-10 * np.log10(np.maximum(error, 1e-30)), MOST_DB)


def items_of(episodes: Episodes, chunk: int, scores: Mapping[Control, Scores], longer: str = "") -> list[Item]:
    """An item for each episode's chunk.

    Args:
        episodes: in truth.
        chunk: which one was generated.
        scores: with the episode's own memory, and with others.
        longer: slice of episodes of another length than the test's own, where alone the items count.
    """
    own = scores[Control.own]
    named = {name if control is Control.own else f"{name}_{control}": values
             for control, each in scores.items() for name, values in each.items()}  # fmt: skip
    if "place" in own:
        named |= {f"gain_{control}": own["place"] - each["place"]
                  for control, each in scores.items() if control is not Control.own}  # fmt: skip
    found = []
    for row, name in enumerate(episodes.ids):
        pairs = {metric: (float(values[row]), 1.0) for metric, values in named.items()}
        gap = int(episodes.gaps[row, chunk])
        slices: dict[str, str | int] = {longer: gap} if longer else {"phase": episodes.phases[row][chunk], "gap": gap}
        number = "/".join([name, *([longer] if longer else []), str(chunk)])
        found.append(Item(number, name, pairs, slices, longer))
    return found


def summarise(items: Sequence[Item], confidence: float) -> dict[str, Interval]:
    """Every metric with its interval, by phase, gap, and gap of longer episodes."""
    slices = sorted(
        {name for item in items for name in item.slices}, key=lambda name: (name not in ("phase", "gap"), name)
    )
    metrics = dict.fromkeys(metric for item in items for metric in item.scores)
    kinds = {metric: Kind.quality for metric in metrics if metric.split("_")[0] not in SHARES}
    return summarised(items, confidence, by=dict.fromkeys(metrics, slices), kinds=kinds)
