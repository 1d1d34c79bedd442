"""Pictures that tell apart at eight rows: a colour on a ground of another, in one of four patterns, within a frame."""

import numpy as np
from numpy.typing import NDArray

INKS = np.array(
    [(225, 40, 35), (40, 190, 60), (45, 75, 235), (240, 215, 45), (215, 50, 205), (40, 205, 215), (240, 240, 240),
     (35, 30, 40)], float,
)  # fmt: skip
OTHER = 3
"""How far on in the list the ground's colour stands."""
GROUND = 0.55
"""Share of the other colour in the ground."""
FRAME = (75, 75, 75)


def catalogue(pictures: int, height: int, width: int) -> NDArray[np.uint8]:
    """Pictures [pictures, height, width, 3], all different up to 32."""
    u, v = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height
    patterns = [
        np.broadcast_to(np.sin(6 * np.pi * u) > 0, (height, width)),
        np.broadcast_to(np.sin(4 * np.pi * v) > 0, (height, width)),
        (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.06,
        (abs(u - 0.5) < 0.12) | (abs(v - 0.5) < 0.15),
    ]
    found = np.empty((pictures, height, width, 3), np.uint8)
    for number in range(pictures):
        turn, hue = divmod(number, len(INKS))
        ink, other = INKS[hue], INKS[(hue + OTHER) % len(INKS)]
        pattern = patterns[(hue + turn) % len(patterns)]
        found[number] = np.where(pattern[..., None], ink, GROUND * other + (1 - GROUND) * ink).round()
        found[number, :, (u < 0.04) | (u > 0.96)] = FRAME
    return found
