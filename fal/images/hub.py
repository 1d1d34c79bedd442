"""Any image data set that `datasets` reads: a folder (of images, of tables, or saved) or a name of the hub.

Nothing is downloaded: a name must be in the library's cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.dataroot import find
from common.errors import UserError
from fal.images.config import HUB, DataConfig
from fal.images.images import Pixels, check_labels, check_range

SAVED = ("state.json", "dataset_dict.json")


def read(config: DataConfig) -> dict[str, Pixels]:
    """The train and test splits.

    Raises:
        UserError: the data set, a split of it or a column is not there, images are not of one square size, or labels
            and pixels are not what they must be.
    """
    rows = _opened(config)
    columns = config.columns
    found, people = {}, dict[Any, int]()
    for split, name in (("train", columns.train), ("test", columns.test)):
        if name not in rows:
            raise UserError(
                f"data.columns.{split}={name}: {config.source} has the splits {', '.join(map(str, rows))}; name one"
            )
        found[split] = _pixels(rows[name], config, f"{config.source}, split {name}", people)
    return found


def _opened(config: DataConfig) -> Any:
    import datasets

    name = config.source.removeprefix(HUB)
    datasets.disable_progress_bars()
    try:
        folder: Path | None = find(config.root, name, "name a data set of the hub")
    except UserError:
        folder = None
    try:
        if folder is not None and any((folder / file).is_file() for file in SAVED):
            rows = datasets.load_from_disk(str(folder))
        else:
            offline = datasets.DownloadConfig(local_files_only=True)
            place = name if folder is None else str(folder)
            rows = datasets.load_dataset(place, config.columns.subset, download_config=offline)
    except Exception as error:  # the library and what lies below it raise many kinds
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"data.source={config.source}: cannot be read ({reason}); give a folder of images or tables, or fetch the "
            "data set once where the hub can be reached"
        ) from error
    return rows if isinstance(rows, dict) else {config.columns.train: rows}


def _pixels(rows: Any, config: DataConfig, where: str, people: dict[Any, int]) -> Pixels:
    columns = config.columns
    for key in ("image", "label", "client"):
        name = getattr(columns, key)
        if name is not None and name not in rows.column_names:
            raise UserError(f"data.columns.{key}={name}: {where} has the columns {', '.join(rows.column_names)}")
    if not len(rows):
        raise UserError(f"{where}: no image in it; give a split with images")
    y = torch.tensor([int(label) for label in rows[columns.label]])
    check_labels(y, config.classes, where)
    images = [_image(image, f"{where}, item {item}") for item, image in enumerate(rows[columns.image])]
    for item, image in enumerate(images):
        if image.shape != images[0].shape or image.shape[1] != image.shape[2]:
            raise UserError(
                f"{where}, item {item}: channels, height and width {tuple(image.shape)}, and {tuple(images[0].shape)} "
                "of the first; all images must be of one square size"
            )
    x = torch.stack(images)
    if x.dtype != torch.uint8:
        check_range(x, where)
    owners = None
    if columns.client is not None:
        owners = torch.tensor([people.setdefault(person, len(people)) for person in rows[columns.client]])
    return Pixels(x, y, owners)


def _image(image: Any, where: str) -> Tensor:
    """[channels, height, width]: uint8 of a picture or whole numbers, float32 of others."""
    values = np.asarray(
        image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB") if _is_picture(image) else image
    )
    if values.ndim not in (2, 3) or values.dtype.kind not in "uif":
        raise UserError(
            f"{where}: no image but {values.ndim} dimensions of {values.dtype}; name another data.columns.image"
        )
    if values.dtype.kind in "ui":
        if values.min() < 0 or values.max() > 255:
            raise UserError(f"{where}: whole numbers from {values.min()} to {values.max()}; pixels are 0 to 255")
        values = values.astype(np.uint8)
    else:
        values = values.astype(np.float32)
    if values.ndim == 2:
        return torch.from_numpy(values.copy())[None]
    last = values.shape[-1] in (1, 3) and values.shape[0] not in (1, 3)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1) if last else values))


def _is_picture(image: Any) -> bool:
    return hasattr(image, "convert")
