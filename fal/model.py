"""Say how large the network is, how much memory a client's step takes, and how many clients a stack holds.

python -m fal.model model=cnn_9k                                a network for stacks of clients
python -m fal.model model=resnet18 data=cifar10 partition.clients=5
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.schema import to_typed
from fal.config import TrainConfig
from fal.networks.config import Kind, ModelConfig

if TYPE_CHECKING:
    from torch import nn

ConfigStore.instance().store(name="fal_schema", node=TrainConfig)  # each paper its own: tests load several


def build(config: ModelConfig, channels: int, side: int, classes: int, seed: int) -> nn.Module:
    """The network of the settings, a function of them and the seed; the global generator stays as it is.

    Args:
        config: the settings.
        channels: of an image; of vectors their coordinates.
        side: of an image; 1 for vectors.
        classes: as many logits come out.
        seed: of the start weights.

    Raises:
        UserError: there is no mean and std for each channel, the image is too small, or vectors come to a network for
            images.
    """
    import torch
    from torch import nn

    from fal.networks import small
    from fal.networks.resnet import resnet18

    for key, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise UserError(
                f"model.{key}={values}: {len(values)} numbers for {channels} channels; give one, or one each"
            )
    if side == 1 and config.kind is not Kind.mlp:
        raise UserError(f"model.kind={config.kind}: these data are vectors, no images; use model=mlp_64")
    if side < 4 and config.kind is Kind.lenet:
        raise UserError(f"model.kind=lenet: images of side {side} are too small; 4 is needed")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # no device's: layers are made on the CPU
        layers = {
            Kind.mlp: lambda: small.mlp(config, channels * side * side, classes),
            Kind.cnn: lambda: small.cnn(config, channels, side, classes),
            Kind.lenet: lambda: small.lenet(config, channels, side, classes),
            Kind.nin: lambda: small.nin(config, channels, classes),
            Kind.resnet18: lambda: resnet18(config, channels, classes),
        }[config.kind]()
    return nn.Sequential(small.Normalise(config.mean, config.std, channels, 1 if side == 1 else 3), *layers)


@entry("pkg://conf.fal")
def main(cfg: DictConfig) -> None:
    """Print how large the model is and how many clients are trained at once."""
    from fal.sizes import report, shape_of

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    channels, side, items = shape_of(config.data)
    network = build(config.model, channels, side, config.data.classes, config.seed)
    sys.stdout.write(report(network, config, (channels, side), items))


if __name__ == "__main__":
    main()
