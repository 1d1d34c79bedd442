"""Videos spoilt in nine known ways: what calibration shows the metrics.

Videos are floats from 0 to 1 [n, f, height, width, 3].
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Video = NDArray[np.float64]
Spoil = Callable[[Video, Video, int, np.random.Generator], Video]
"""(videos, those of other episodes, frames of a chunk, draws) -> spoilt videos."""
MORPH = 16
"""Frames of the cross-fade."""
NOISE = 0.1
BLUR = 5
"""Pixels."""


def middle(frames: int, chunk: int) -> int:
    """The frame at which another episode begins: the start of the middle chunk."""
    return frames // chunk // 2 * chunk


def copied(video: Video, _: Video, chunk: int, __: np.random.Generator) -> Video:
    """Every chunk is the last frame of the one before."""
    last = video[:, chunk - 1 :: chunk]
    shown = np.concatenate([last[:, :1], last[:, :-1]], 1)
    return shown.repeat(chunk, 1)


def frozen(video: Video, _: Video, __: int, ___: np.random.Generator) -> Video:
    """The first frame throughout."""
    return video[:, :1].repeat(video.shape[1], 1)


def spliced(video: Video, other: Video, chunk: int, _: np.random.Generator) -> Video:
    """From the middle on another episode, at once."""
    start = middle(video.shape[1], chunk)
    return np.concatenate([video[:, :start], other[:, start:]], 1)


def morphed(video: Video, other: Video, chunk: int, _: np.random.Generator) -> Video:
    """From the middle on another episode, by a cross-fade of `MORPH` frames."""
    start = middle(video.shape[1], chunk)
    share = np.clip((np.arange(video.shape[1]) - start + MORPH // 2 + 1) / (MORPH + 1), 0, 1)[:, None, None, None]
    return (1 - share) * video + share * other


def noised(video: Video, _: Video, __: int, draws: np.random.Generator) -> Video:
    """Normal noise on every pixel."""
    return np.clip(video + NOISE * draws.standard_normal(video.shape), 0, 1)


def blurred(video: Video, _: Video, __: int, ___: np.random.Generator) -> Video:
    """The mean of five by five pixels around each; edges repeat."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(video, (1, 1, BLUR, BLUR, 1), mode="nearest")


def shuffled(video: Video, _: Video, __: int, draws: np.random.Generator) -> Video:
    """The frames in another order, for each video its own."""
    return np.stack([each[draws.permutation(len(each))] for each in video])


def backwards(video: Video, _: Video, __: int, ___: np.random.Generator) -> Video:
    """The last frame first."""
    return video[:, ::-1]


def foreign(_: Video, other: Video, __: int, ___: np.random.Generator) -> Video:
    """Another episode, faultless in itself."""
    return other


SPOILT: Mapping[str, Spoil] = {
    "copy of last frame": copied,
    "freeze": frozen,
    "splice": spliced,
    "16-frame morph": morphed,
    "noise": noised,
    "blur": blurred,
    "shuffled": shuffled,
    "time reversed": backwards,
    "other world": foreign,
}
