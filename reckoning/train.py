"""Train one method on one data set with one seed, select on dev, test once. The same command continues a run.

python -m reckoning.train +experiment=proofwriter                          the published set-up
python -m reckoning.train +experiment=proofwriter scale=cpu                all of it on two cores, no files needed
python -m reckoning.train -m +sweep=table1 scale=cpu hydra/launcher=local  the runs behind a table
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.schema import to_typed
from reckoning.config import Learner, TrainConfig

if TYPE_CHECKING:
    from common.run.results import Results

ConfigStore.instance().store(name="schema", node=TrainConfig)


def train(config: TrainConfig, folder: Path) -> Results:
    """Train one method on one data set with one seed, select on dev, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from common.language.training import train_and_select
    from common.run.run import Run, RunIdentity
    from reckoning import data
    from reckoning.build import build
    from reckoning.evaluate import measure, respond
    from reckoning.sampler import reshuffled
    from reckoning.scoring import accuracy, to_json
    from reckoning.shortcut_rows import shortcut_rows

    who = RunIdentity("reckoning", config.experiment, config.method.name, config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        splits = data.load(config.data)
        if config.method.learner is Learner.shortcuts:
            metrics, predictions = shortcut_rows(splits, config)
            return run.finish(metrics, predictions)

        parts = build(config, splits, run.device, run.dtype)
        train_and_select(
            run,
            parts,
            splits["train"],
            config.outer,
            score=lambda: accuracy(respond(parts, splits["dev"], config, select=True)),
            patience=config.evaluation.patience,
            fresh=reshuffled if config.method.reshuffle else None,
        )
        metrics, items = measure(parts, splits["test"], config)
        return run.finish(metrics, map(to_json, items))


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy, of several shortcuts the best one's."""
    test = train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test
    return test["accuracy"].value if "accuracy" in test else max(interval.value for interval in test.values())


if __name__ == "__main__":
    main()
