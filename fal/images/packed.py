"""CIFAR-10 as JPEG images in an .npz archive: quality 75, so numbers are not comparable with those of the original.

What the archive holds besides `common.data.jpegs`: labels, uint8 [items].

CIFAR-10: Krizhevsky 2009.
"""

from pathlib import Path

import numpy as np
import torch

from common.data import jpegs, npz
from common.errors import UserError
from fal.images.images import Pixels, check_labels

SIDE = 32


def read(path: Path, classes: int) -> Pixels:
    """Images [items, 3, 32, 32], unpacked, and their labels.

    Raises:
        UserError: the archive or an image is damaged, parts are missing or do not fit one another, or a label is none
            of 0 to classes - 1.
    """
    parts = npz.arrays(path, (*jpegs.PARTS, "labels"))
    labels = torch.from_numpy(parts["labels"].astype(np.int64))
    if len(parts["offsets"]) != len(labels) + 1:
        raise UserError(f"{path}: {len(parts['offsets']) - 1} images, and {len(labels)} labels; {npz.AGAIN}")
    check_labels(labels, classes, str(path))
    x = jpegs.images(path, parts, SIDE, SIDE)
    return Pixels(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), labels)
