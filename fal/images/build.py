"""The three splits of a source: the dev split is cut off its train file, and nothing of the test file is in either."""

from __future__ import annotations

import logging

import torch

from common.data.dataroot import find
from common.data.splits import SPLITS, check_disjoint
from common.errors import UserError
from fal.images import generated, hub, idx, packed
from fal.images.config import FILES, GENERATED, REMEDY, DataConfig
from fal.images.images import Pixels

logger = logging.getLogger(__name__)


def build(config: DataConfig) -> dict[str, Pixels]:
    """Split -> pixels, read or generated.

    Raises:
        UserError: a file is missing or damaged, or there are fewer images than asked for.
    """
    if config.source in GENERATED:
        make = {"shapes": generated.shapes, "clusters": generated.clusters}[config.source]
        sizes = {"train": config.train, "dev": config.validation, "test": config.test}
        found = {split: make(config, split, int(sizes[split] or 0)) for split in SPLITS}
    else:
        found = _cut(_read(config), config)
    keys = {split: {each.hex() for each in pixels.prints()} for split, pixels in found.items()}
    check_disjoint(keys, "images")
    return found


def _read(config: DataConfig) -> dict[str, Pixels]:
    """The files' train and test splits."""
    if config.source not in FILES:
        return hub.read(config)
    found = {}
    for split, names in FILES[config.source].items():
        paths = [find(config.root, name, REMEDY) for name in names]
        one = config.source == "cifar10"
        found[split] = packed.read(paths[0], config.classes) if one else idx.read(paths[0], paths[1], config.classes)
    return found


def _cut(whole: dict[str, Pixels], config: DataConfig) -> dict[str, Pixels]:
    """The dev split off the train file, in an order of `data.seed`; a copy of what is held out stays in no split."""
    train, test = whole["train"], whole["test"]
    if config.test is not None and config.test > len(test):
        raise UserError(f"data.test={config.test}: {config.source} has {len(test)} test images; use fewer, or null")
    own, tested = train.prints(), set(test.prints())
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed)).tolist()
    free = [item for item in order if own[item] not in tested]
    dev = free[: config.validation]
    held = {own[item] for item in dev}
    rest = [item for item in free[config.validation :] if own[item] not in held]
    if copies := len(train) - len(dev) - len(rest):
        logger.info("%s: %d training images are left out, equal to one of the dev or test split", config.source, copies)
    if len(dev) < config.validation or len(rest) < (config.train or 1):
        raise UserError(
            f"data.train={config.train}, data.validation={config.validation}: {config.source} has {len(free)} training "
            "images that are none of the test split's; use fewer"
        )
    kept = rest if config.train is None else rest[: config.train]
    return {"train": train.at(kept), "dev": train.at(dev), "test": test.at(range(config.test or len(test)))}
