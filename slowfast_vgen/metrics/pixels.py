"""PSNR and SSIM of pictures and clips, one number an item.

Frames are uint8, or any floats with black at 0 and white at 1; the last axes are height, width, 3, the first one counts
the items. Both agree with torchmetrics (`data_range=1`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
HIGHEST = 100.0
"""Decibels that equal frames are given, whose PSNR has no end. Rounding to 8 bits alone costs more: 58.9 dB."""
WINDOW, SIGMA = 11, 1.5
"""Of SSIM's Gaussian, in pixels (Wang et al. 2004, Section III.B)."""
LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""SSIM's constants K1 and K2, squared, for a range of 1."""


def psnr(made: ArrayLike, truth: ArrayLike) -> Array:
    """Peak signal-to-noise ratio in dB of every item, of the squared error over all that it holds.

    Args:
        made: frames [n, ..., height, width, 3].
        truth: of the same shape.

    Returns:
        [n], at most `HIGHEST`.

    Raises:
        ValueError: shapes differ, or there is no first axis.
    """
    first, second = _pair(made, truth)
    error = ((first - second) ** 2).mean(axis=tuple(range(1, first.ndim)))
    return np.minimum(-10 * np.log10(np.maximum(error, 10 ** (-HIGHEST / 10))), HIGHEST)


def ssim(made: ArrayLike, truth: ArrayLike) -> Array:
    """Structural similarity of every item, the mean over its frames, channels and pixels.

    The window is a Gaussian of 11 pixels and sigma 1.5 around every pixel; at the edges frames are mirrored, so small
    ones have a value, too (torchmetrics does the same; the paper's MATLAB code leaves the edges out).

    Args:
        made: frames [n, ..., height, width, 3].
        truth: of the same shape.

    Returns:
        [n], 1 for equal items.

    Raises:
        ValueError: shapes differ, or there is no first axis.
    """
    first, second = _pair(made, truth)
    frames = (-1, *first.shape[-3:])
    down, along = (_smoothing(side) for side in first.shape[-3:-1])
    pairs = zip(first, second, strict=True)
    return np.array([_similarity(one.reshape(frames), other.reshape(frames), down, along) for one, other in pairs])


def _similarity(first: Array, second: Array, down: Array, along: Array) -> float:
    """SSIM of frames [f, height, width, channels], smoothed by `down` and `along`."""

    def smooth(frames: Array) -> Array:
        return np.einsum("ij,fjkc,lk->filc", down, frames, along, optimize=True)

    mean, other = smooth(first), smooth(second)
    spread = np.maximum(smooth(first**2) - mean**2, 0) + np.maximum(smooth(second**2) - other**2, 0)
    shared = smooth(first * second) - mean * other
    alike = (2 * mean * other + LUMINANCE) * (2 * shared + CONTRAST)
    return float((alike / ((mean**2 + other**2 + LUMINANCE) * (spread + CONTRAST))).mean())


def _smoothing(side: int) -> Array:
    """The matrix [side, side] that takes a row of pixels to its weighted means."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    seen = np.pad(np.arange(side), WINDOW // 2, mode="reflect")
    made = np.zeros((side, side))
    for place, row in enumerate(made):
        np.add.at(row, seen[place : place + WINDOW], weights / weights.sum())
    return made


def _pair(made: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    first, second = unit(made), unit(truth)
    if first.shape != second.shape or first.ndim < 4:
        raise ValueError(f"frames {first.shape} and {second.shape}: two of [n, ..., height, width, 3] are compared")
    return first, second


def whole(frames: ArrayLike) -> NDArray[np.uint8]:
    """Floats from 0 to 1 as uint8."""
    return np.rint(np.clip(np.asarray(frames), 0, 1) * 255).astype(np.uint8)


def unit(frames: ArrayLike) -> Array:
    """Frames as float64 from 0 to 1."""
    given = np.asarray(frames)
    return given / 255 if given.dtype == np.uint8 else given.astype(np.float64)
