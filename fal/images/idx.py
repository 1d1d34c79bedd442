"""MNIST and Fashion-MNIST, both in the IDX format.

MNIST: LeCun, Cortes and Burges; Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (MIT), in the same format.
"""

from pathlib import Path

import torch

from common.data.idx import AGAIN, array
from common.errors import UserError
from fal.images.images import Pixels, check_labels


def read(images: Path, labels: Path, classes: int) -> Pixels:
    """Images [items, 1, height, width] and their labels.

    Raises:
        UserError: a file is damaged, cut short or not IDX, there are not as many labels as images, or a label is none
            of 0 to classes - 1.
    """
    x, y = array(images, 3), array(labels, 1)
    if len(x) != len(y):
        raise UserError(f"{images} has {len(x)} images, and {labels} {len(y)} labels; {AGAIN}, both of one split")
    found = Pixels(torch.from_numpy(x)[:, None], torch.from_numpy(y).long())
    check_labels(found.y, classes, str(labels))
    return found
