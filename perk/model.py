"""Say how large the network is, which weights are fast, and whether training it fits.

python -m perk.model +experiment=babilong_qa1                            Qwen2.5-0.5B
python -m perk.model +experiment=babilong_qa1 model=qwen2_7b runtime=gpu
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
from perk.config import TrainConfig

ConfigStore.instance().store(name="perk_schema", node=TrainConfig)  # each paper its own: tests load several


@entry("pkg://conf.perk")
def main(cfg: DictConfig) -> None:
    """Print how large the model is and whether training it fits."""
    import torch

    from common.language.model import skeleton
    from perk.sizes import report, shape_of

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    network = skeleton(config.network, getattr(torch, config.runtime.dtype.name)).train()
    sys.stdout.write(report(network, config, shape_of(config)))


if __name__ == "__main__":
    garbage.rarely()
    main()
