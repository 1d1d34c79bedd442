"""Room 5, the entry: configuration to objects, then the loop.

    python -m reckoning.train +experiment=proofwriter              the published set-up
    python -m reckoning.train +experiment=proofwriter scale=cpu    all of it on two cores, no files needed
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.entry import entry
from common.schema import plain, to_typed
from reckoning.config import Learner, TrainConfig

if TYPE_CHECKING:
    from common.results import Results

ConfigStore.instance().store(name="schema", node=TrainConfig)
logger = logging.getLogger(__name__)


def train(config: TrainConfig, folder: Path) -> Results:
    """Train one method on one data set with one seed, select on dev, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from common.outer import Outer
    from common.run import Run, RunIdentity
    from reckoning import data
    from reckoning.build import build
    from reckoning.evaluate import respond
    from reckoning.sampler import Batches
    from reckoning.scoring import accuracy, summarise, to_json
    from reckoning.shortcut_rows import shortcut_rows

    who = RunIdentity("reckoning", config.experiment, config.method.name, config.scale, config.seed)
    with Run(folder, plain(config), config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        splits = data.load(config.data)
        if config.method.learner is Learner.shortcuts:
            return run.finish(*shortcut_rows(splits, config))

        parts = build(config, splits, run.device, run.dtype)
        total = config.outer.total_steps(len(splits["train"]))
        outer = Outer(config.outer, parts.model.network, parts.rates, total)
        batches = Batches(splits["train"], config.outer.batch_problems, config.seed)
        run.track("model", parts.model.network)
        run.track("rates", parts.rates)
        run.track("outer", outer)

        stale = 0  # dev evaluations since the best one
        if run.restore() == 0:
            run.log(0, "dev", accuracy=accuracy(respond(parts, splits["dev"], config, select=True)))
        for step in run.steps(total):
            loss = 0.0
            for part in range(config.outer.accumulation):
                batch = batches[(step - 1) * config.outer.accumulation + part]
                loss += outer.accumulate(parts.learner.losses(batch))
            norm = outer.step()
            if run.due(config.loop.log_every):
                shown = {f"rates/{name}": value for name, value in parts.rates.summary().items()}
                run.log(step, "train", outer_loss=loss, grad_norm=norm, **parts.learner.measured, **shown)
            if run.due(config.loop.evaluate_every):
                score = accuracy(respond(parts, splits["dev"], config, select=True))
                run.log(step, "dev", accuracy=score)
                stale = 0 if run.note_best(score) else stale + 1
                if config.evaluation.patience and stale >= config.evaluation.patience:
                    run.end_early()
            run.save_if_due(step)

        run.restore_best("model", "rates")
        items = respond(parts, splits["test"], config)
        metrics = summarise(items, config.evaluation.confidence)
        run.log(total, "test", **{name: interval.value for name, interval in metrics.items()})
        return run.finish(metrics, map(to_json, items))


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy, so that sweepers can optimise it."""
    results = train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir))
    return max(interval.value for name, interval in results.test.items() if name.startswith("accuracy"))


if __name__ == "__main__":
    main()
