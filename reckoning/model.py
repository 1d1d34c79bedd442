"""Say how large the network is, which weights are fast, and whether training it fits.

python -m reckoning.model +experiment=proofwriter                        GPT-2 small
python -m reckoning.model +experiment=proofwriter inner.unroll=recompute runtime=gpu
"""

import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common import garbage
from common.run.entry import entry
from common.run.files import remove_if_empty
from common.run.schema import to_typed
from reckoning.config import TrainConfig

ConfigStore.instance().store(name="schema", node=TrainConfig)


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> None:
    """Print how large the model is and whether training it fits."""
    import torch

    from common.language.model import skeleton
    from reckoning.sizes import report, shape_of

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    network = skeleton(config.model, getattr(torch, config.runtime.dtype.name)).train()
    sys.stdout.write(report(network, config, shape_of(config)))


if __name__ == "__main__":
    garbage.rarely()
    main()
