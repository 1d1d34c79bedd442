"""The network, which is `common.language`'s.

`python -m reckoning.model +experiment=proofwriter` says how large it is, which weights are fast, and whether it fits.
"""

import sys
from pathlib import Path

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.language.model import skeleton
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.schema import to_typed
from reckoning.config import TrainConfig

ConfigStore.instance().store(name="schema", node=TrainConfig)


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> None:
    """Print how large the model is and whether training it fits."""
    from reckoning.sizes import report, shape_of

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    network = skeleton(config.model, getattr(torch, config.runtime.dtype.name)).train()
    sys.stdout.write(report(network, config, shape_of(config)))


if __name__ == "__main__":
    main()
