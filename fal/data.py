"""Read or generate the images, check and share them out, show what each client gets and how near classes lie.

python -m fal.data data=fashion_mnist partition=skew                 five clients with 92 % of their own labels
python -m fal.data data=shapes partition=dirichlet partition.beta=0.1   no file needed
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.data import cache
from common.data.dataroot import ROOT_VARIABLE, find, is_there
from common.data.splits import SPLITS, build_digest
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.results import hashed_keys
from common.run.schema import plain, to_typed
from fal.config import TrainConfig
from fal.images.config import COUNTS, HUB, REMEDY, DataConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fal.images.images import Images, Pixels

logger = logging.getLogger(__name__)
KEPT = ".safetensors"
"""Ending of the files of kept splits."""

ConfigStore.instance().store(name="fal_schema", node=TrainConfig)  # each paper its own: tests load several


def available(config: DataConfig) -> DataConfig:
    """The settings; where no file of a known set is there, those of generated shapes in its place, with a warning.

    A run takes these for its own before it is hashed, so that it is never found as one on the real set.
    """
    if not config.files or any(is_there(config.root, name) for name in config.files):
        return config
    logger.warning(
        "data.source=%s: its files are not below data.root=%s; generated shapes take its place, and no number is one "
        "on %s; set data.root or %s to the folder that holds %s",
        config.source, config.root, config.source, ROOT_VARIABLE, config.files[0],
    )  # fmt: skip
    return replace(
        config,
        source="shapes",
        stands_for=config.source,
        train=config.train or COUNTS["train"],
        validation=min(config.validation, COUNTS["validation"]),
        test=config.test or COUNTS["test"],
    )


def load(config: DataConfig) -> dict[str, Images]:
    """Split -> images: train (which clients share), dev and test. With `data.cache` they are kept once read.

    Raises:
        UserError: a file is damaged or does not fit the settings, or pixels or labels are not what they must be.
    """
    config = available(config)
    found = _kept(config)
    bounded = config.source != "clusters"
    return {split: found[split].images(config.classes, config.name, bounded=bounded) for split in SPLITS}


def digests(splits: dict[str, Images]) -> dict[str, str]:
    """Split -> digest of images, labels and whom they are from: a run is continued with the same ones only."""
    from common.run import tensorfile

    return {split: tensorfile.digest(_named(images)) for split, images in splits.items()}


def _kept(config: DataConfig) -> dict[str, Pixels]:
    """The splits' pixels, from the cache where they are kept."""
    from safetensors.torch import load_file

    from common.run import tensorfile
    from fal.images.build import build
    from fal.images.images import Pixels

    folder = _cache_folder(config)
    if folder is None:
        return build(config)
    if not cache.is_whole(folder, KEPT):
        found = build(config)
        with cache.writing(folder, KEPT):
            folder.mkdir(parents=True, exist_ok=True)
            for split, pixels in found.items():
                tensorfile.write(cache.file_of(folder, split, KEPT), _named(pixels))
    return {split: Pixels(**load_file(cache.file_of(folder, split, KEPT))) for split in SPLITS}


def _named(images: Images | Pixels) -> dict[str, Tensor]:
    owned = {} if images.owners is None else {"owners": images.owners}
    return {"x": images.x, "y": images.y, **owned}


def _cache_folder(config: DataConfig) -> Path | None:
    """Where the splits lie, named by everything that decides them; what `datasets` reads it keeps itself."""
    if config.cache is None or config.source.startswith(HUB):
        return None
    files = {name: find(config.root, name, REMEDY) for name in config.files}
    keys = hashed_keys(plain(config), DataConfig)
    return Path(config.cache) / f"{config.source}-{build_digest(keys, files, 'fal.images')}"


@entry("pkg://conf.fal")
def main(cfg: DictConfig) -> None:
    """Print what the images are and which client has which."""
    from fal.preview import show

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    show(load(config.data), config)


if __name__ == "__main__":
    main()
