"""JPEG images in an .npz archive, without what they share.

header   uint8, the beginning that all of them share
body     uint8, what follows it of each, one after the other
offsets  int64 [images + 1]; image i is header + body[offsets[i]:offsets[i + 1]]
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.npz import AGAIN
from common.errors import UserError

PARTS = ("header", "body", "offsets")


def images(path: Path, parts: Mapping[str, NDArray[Any]], width: int, height: int) -> NDArray[np.uint8]:
    """All images [images, height, width, 3] of the `PARTS` read from `path`.

    Raises:
        UserError: the offsets do not cut the body, or an image is damaged or of another size.
    """
    offsets = parts["offsets"].astype(np.int64)
    head, body = parts["header"].tobytes(), parts["body"].tobytes()
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(body) or (np.diff(offsets) <= 0).any():
        raise UserError(f"{path}: offsets that do not cut its {len(body)} bytes of images; {AGAIN}")
    found = np.empty((len(offsets) - 1, height, width, 3), np.uint8)
    for item in range(len(found)):
        found[item] = _image(path, item, head + body[offsets[item] : offsets[item + 1]], (width, height))
    return found


def _image(path: Path, item: int, raw: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(raw), formats=["JPEG"]) as image:
            if image.size != size:
                raise UserError(
                    f"{path}: image {item} is of {image.size} pixels, and {size[0]} by {size[1]} are needed"
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's of what is no image
        raise UserError(f"{path}: image {item} is damaged ({error}); {AGAIN}") from error
