"""SCuts: scene cuts of a video as PySceneDetect's AdaptiveDetector finds them with its default settings.

A frame's content value is how far hue, saturation and value have moved since the frame before, on the 8-bit scale of
OpenCV (hue to 180). A cut is where it stands out from the two values before and the two after. What that overlooks is
measured in `slowfast_vgen.calibration`: a frozen video, a slow cross-fade and pure noise all have no cut.
"""

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 3.0
"""How many times the mean of its neighbours a content value must be (`adaptive_threshold`)."""
WINDOW = 2
"""Neighbours on each side (`window_width`)."""
LEAST = 15.0
"""Of a content value (`min_content_val`)."""
SHORTEST = 15
"""Frames from one cut, or the start, to the next cut (`min_scene_len`)."""
STILL = 1e-5
"""Neighbours whose mean is below it count as still: any content value of `LEAST` stands out from them."""
FIXED = 12
"""Binary places of the divisions in `hsv`."""


def cuts(frames: NDArray[np.uint8]) -> list[int]:
    """The frames that begin a new scene, from 1 on.

    Args:
        frames: a video [f, height, width, 3], red green blue. None shorter than 18 frames can have a cut: a scene has
            15, and a cut is found two frames later.

    Raises:
        ValueError: frames of another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames {frames.dtype} {frames.shape}: uint8 [frames, height, width, 3] are needed")
    values = content(frames)
    found, last = [], 0
    for place in range(WINDOW, len(values) - WINDOW):
        around = (values[place - WINDOW : place].sum() + values[place + 1 : place + 1 + WINDOW].sum()) / (2 * WINDOW)
        stands_out = around < STILL or values[place] / around >= THRESHOLD
        if stands_out and values[place] >= LEAST and place - last >= SHORTEST:
            found.append(place)
            last = place
    return found


def content(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Content values [f] of a video [f, height, width, 3]; the first is 0."""
    seen = hsv(frames)
    moved = np.abs(np.diff(seen, axis=0)).sum((1, 2)) / (frames.shape[1] * frames.shape[2])
    return np.concatenate([[0.0], moved.sum(-1) / 3])


def hsv(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Hue (0 to 179), saturation and value (0 to 255) of red, green, blue [..., 3], rounded as OpenCV rounds 8 bits."""
    red, green, blue = np.moveaxis(frames.astype(np.int64), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    sixths = np.select(
        [value == red, value == green], [green - blue, blue - red + 2 * spread], red - green + 4 * spread
    )
    hue = _over(180 / 6, sixths, spread)
    return np.stack([np.where(hue < 0, hue + 180, hue), _over(255, spread, value), value], -1)


def _over(factor: float, above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """factor * above / below, rounded twice: the factor over `below` to `FIXED` binary places, then the product."""
    inverse = np.zeros(256, np.int64)
    inverse[1:] = np.rint(factor * 2**FIXED / np.arange(1, 256))
    return (above * inverse[below] + 2 ** (FIXED - 1)) >> FIXED
