"""Train one method on one federation with one seed, select on dev under attack, test once. The same command goes on.

python -m fal.train +experiment=fashion_mnist_skew                        the set-up of SFAT on Fashion-MNIST
python -m fal.train +experiment=fashion_mnist_skew scale=cpu method=fat   on one core, about a minute
python -m fal.train -m +sweep=fmnist_skew scale=cpu hydra/launcher=local  the runs behind a table
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.schema import to_typed
from fal.config import TrainConfig
from fal.flower.config import Engine

if TYPE_CHECKING:
    from common.run.results import Results
    from common.run.run import Run
    from fal.alarm import Alarm
    from fal.build import Parts
    from fal.client import Remote

ConfigStore.instance().store(name="fal_schema", node=TrainConfig)  # each paper its own: tests load several


def train(config: TrainConfig, folder: Path, remote: Remote | None = None) -> Results:
    """Train one method on one federation with one seed, select on dev under attack, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Args:
        config: all keys.
        folder: the run folder.
        remote: of a federation over processes, who trains the clients; without it `engine` starts one.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from dataclasses import replace

    from common.run.items import write_of_all
    from common.run.run import Run, RunIdentity
    from fal import data
    from fal.alarm import Alarm
    from fal.build import build
    from fal.evaluate import measure
    from fal.objective import SELECTION
    from fal.states import Recent

    if remote is None and config.engine.name is not Engine.inprocess:
        from fal.flower.deploy import conduct

        return conduct(config, folder)
    config = replace(config, data=data.available(config.data))
    shown = f"{config.experiment} on {config.data.name}" if config.data.stands_for else config.experiment
    who = RunIdentity("fal", shown, config.method.name, config.scale, config.seed)
    settings = (config.runtime, config.tracker, config.loop)
    with Run(folder, config, *settings, who, SELECTION, config.evaluation.patience) as run:
        if run.finished:
            return run.results
        parts = build(config, run.device, run.dtype)
        run.fix(data.digests(parts.splits))  # continued on these only
        parts.federation.remote = remote
        federation, recent, alarm = parts.federation, Recent(config.evaluation.recent), Alarm(config)
        run.track("server", federation.server)
        run.track("clients", federation.states)
        run.track("recent", recent)

        for step in run.steps(config.federation.rounds):  # starts where the checkpoint ended
            found = federation.round(step)  # attack, local steps, aggregate
            recent.add(step, federation.server)
            if run.due(config.loop.log_every):
                run.log(step, "train", clients=found.clients, left_out=len(found.left_out), **found.metrics, **run.cost)
            if run.due(config.loop.evaluate_every):
                run.select(evaluate_dev(run, parts, config, alarm))  # keeps the best; out of patience, ends
            run.save_if_due(step)  # also on a stop signal

        last = federation.server.state
        run.restore_best("server")
        metrics, items, of_all = measure(parts, last, recent.states, config)
        write_of_all(run.folder, of_all)
        return run.finish(metrics, items)


def evaluate_dev(run: Run, parts: Parts, config: TrainConfig, alarm: Alarm) -> float:
    """Accuracy on dev under PGD, logged beside the natural one and what the alarm looks at; means over models."""
    from fal.judge import NATURAL, judge_each
    from fal.objective import SELECTION

    models = parts.federation.local.network.modules(*parts.federation.server.state)
    metrics, asked = (NATURAL, SELECTION.metric, *alarm.metrics), config.evaluation
    right = judge_each(models, parts.splits["dev"], config.attack, asked, metrics, asked.dev)
    shown = {metric: float(values.double().mean()) for metric, values in right.items()}
    run.log(run.step, "dev", **shown, **alarm.look(run.step, shown))
    return shown[SELECTION.metric]


@entry("pkg://conf.fal")
def main(cfg: DictConfig) -> float:
    """Returns the accuracy under PGD on the test split."""
    from fal.objective import SELECTION

    return SELECTION.headline(train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test)


if __name__ == "__main__":
    main()
