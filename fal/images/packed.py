"""CIFAR-10 as JPEG images in an .npz archive: quality 75, so numbers are not comparable with those of the original.

    header   uint8, the beginning that all JPEG files share
    body     uint8, what follows it of each file, one after the other
    offsets  int64 [items + 1]; image i is header + body[offsets[i]:offsets[i + 1]]
    labels   uint8 [items]

CIFAR-10: Krizhevsky 2009.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from common.data.packed import DAMAGE, members
from common.errors import UserError
from fal.images.images import Pixels, check_labels

SIDE = 32
PARTS = ("header", "body", "offsets", "labels")
AGAIN = "copy or download it again"


def read(path: Path, classes: int) -> Pixels:
    """Images [items, 3, 32, 32], unpacked, and their labels.

    Raises:
        UserError: the archive or an image is damaged, parts are missing or do not fit one another, or a label is none
            of 0 to classes - 1.
    """
    parts = _arrays(path)
    offsets, labels = parts["offsets"].astype(np.int64), torch.from_numpy(parts["labels"].astype(np.int64))
    head, body = parts["header"].tobytes(), parts["body"].tobytes()
    if len(offsets) != len(labels) + 1:
        raise UserError(f"{path}: {len(offsets) - 1} images, and {len(labels)} labels; {AGAIN}")
    if offsets[0] != 0 or offsets[-1] != len(body) or (np.diff(offsets) <= 0).any():
        raise UserError(f"{path}: offsets that do not cut its {len(body)} bytes of images; {AGAIN}")
    check_labels(labels, classes, str(path))
    x = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for item in range(len(labels)):
        x[item] = _image(path, item, head + body[offsets[item] : offsets[item + 1]])
    return Pixels(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), labels)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        held = members(path)
        return {name: np.lib.format.read_array(io.BytesIO(held[f"{name}.npy"]), allow_pickle=False) for name in PARTS}
    except KeyError as error:
        raise UserError(f"{path}: no part {error} in it; of {', '.join(PARTS)} all are needed") from error
    except (*DAMAGE, ValueError, MemoryError, RuntimeError) as error:
        raise UserError(f"{path}: damaged archive ({error}); {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _image(path: Path, item: int, raw: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(raw), formats=["JPEG"]) as image:
            if image.size != (SIDE, SIDE):
                raise UserError(f"{path}: image {item} is of {image.size} pixels, and {SIDE} by {SIDE} are needed")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's of what is no image
        raise UserError(f"{path}: image {item} is damaged ({error}); {AGAIN}") from error
