"""Images with their labels, as every room of the paper gets them, and what they must be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError


@dataclass(frozen=True)
class Images:
    """One split."""

    x: Tensor
    """[items, channels, height, width], or of vectors [items, coordinates]; float32."""
    y: Tensor
    """[items], int64, from 0 to classes - 1."""
    classes: int
    name: str
    owners: Tensor | None = None
    """[items], int64: who each is from, where that is known (partition=natural)."""
    bounded: bool = True
    """Is every number in [0, 1]? Attacks then stay in it, too. Generated vectors are not."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and side, as `fal.model.build` takes them; of vectors the coordinates and 1."""
        return (self.x.shape[1], self.x.shape[-1]) if self.x.ndim == 4 else (self.x.shape[1], 1)


@dataclass(frozen=True)
class Pixels:
    """What a file holds, or a generator makes: as `Images`, x uint8 from 0 to 255 or float32."""

    x: Tensor
    y: Tensor
    owners: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def at(self, places: Sequence[int] | Tensor) -> Pixels:
        """Those of the places, in their order."""
        index = torch.as_tensor(places, dtype=torch.long)
        return Pixels(self.x[index], self.y[index], None if self.owners is None else self.owners[index])

    def images(self, classes: int, name: str, *, bounded: bool = True) -> Images:
        """As float32, checked.

        Raises:
            UserError: a number outside [0, 1], or none at all, where images must be `bounded`.
        """
        x = self.x.float().div_(255) if self.x.dtype == torch.uint8 else self.x.float()
        if bounded:
            check_range(x, name)
        return Images(x, self.y, classes, name, self.owners, bounded)

    def prints(self) -> list[bytes]:
        """A digest of each image: equal images have equal ones."""
        flat = self.x.reshape(len(self), -1).contiguous().numpy()
        return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]


def check_range(x: Tensor, where: str) -> None:
    """See that images are what attacks take them for.

    Raises:
        UserError: a number outside [0, 1], or none.
    """
    low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise UserError(
            f"{where}: pixels from {low:.4g} to {high:.4g}, and they must lie in [0, 1]; take normalising out of the "
            "data and set model.mean and model.std, with which the network's first layer does it"
        )


def check_labels(y: Tensor, classes: int, where: str) -> None:
    """See that labels are 0 to classes - 1.

    Raises:
        UserError: one is not; it names `where` and which.
    """
    wrong = ((y < 0) | (y >= classes)).nonzero()
    if len(wrong):
        item = int(wrong[0])
        raise UserError(
            f"{where}: label {int(y[item])} of item {item} is none of 0 to {classes - 1} (data.classes={classes}); "
            "correct the labels, or set data.classes"
        )
