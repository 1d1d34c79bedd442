"""Train one method in one world with one seed, select on dev, test once. The same command goes on.

python -m slowfast_vgen.train +experiment=rooms scale=cpu method=slow      slow learning alone, on one core
python -m slowfast_vgen.train +experiment=rooms scale=cpu method=meta      slow learning, then through the fast steps
python -m slowfast_vgen.train -m +sweep=controls scale=cpu hydra/launcher=local     the runs behind a table
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.schema import to_typed
from slowfast_vgen.config import TrainConfig

if TYPE_CHECKING:
    from common.run.results import Results
    from common.run.run import Run
    from slowfast_vgen.build import Parts

log = logging.getLogger(__name__)
ConfigStore.instance().store(name="slowfast_vgen_schema", node=TrainConfig)  # each paper its own: tests load several


def train(config: TrainConfig, folder: Path) -> Results:
    """Train one method in one world with one seed, select on dev, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from dataclasses import replace

    from common.run.items import write_of_all
    from common.run.run import Run, RunIdentity
    from slowfast_vgen.build import build
    from slowfast_vgen.data import available
    from slowfast_vgen.evaluate import controls_of, measure
    from slowfast_vgen.horizons import told
    from slowfast_vgen.objective import selection_of
    from slowfast_vgen.pictures import contact_sheet
    from slowfast_vgen.reuse import take_over, takes_over
    from slowfast_vgen.stages import Optimiser, begin_outer, outer_step, slow_batch_loss

    config = replace(config, data=available(config.data))
    who = RunIdentity("slowfast_vgen", config.experiment, config.method.name, config.scale, config.seed)
    settings = (config.runtime, config.tracker, config.loop)
    with Run(folder, config, *settings, who, selection_of(config), config.evaluation.patience) as run:
        if run.finished:
            return run.results
        log.info("faithful: %s", str(config.faithful).lower())
        parts = build(config, run.device, run.dtype)
        optimiser = Optimiser(parts, config)
        for name, part in (*parts.tracked.items(), ("optimiser", optimiser)):
            run.track(name, part)
        slow, total = config.slow_steps, config.slow_steps + config.outer_steps
        if run.restore() == 0 and takes_over(config):
            take_over(config, parts)
            run.state.step = slow

        for step in run.steps(total):  # starts where the checkpoint ended
            if step <= slow:
                shown = optimiser.step(slow_batch_loss(parts, config, step))  # Eq. 2
                parts.slow.average(step)
            else:
                if step == slow + 1:
                    begin_outer(parts, config, optimiser)  # from the mean of the slow weights
                logged = run.due(config.loop.log_every)
                shown = outer_step(parts, config, optimiser, step - slow, run.folder, logged)
            if run.due(config.loop.log_every):
                run.log(step, "train", **shown, **run.cost)
            if run.due(config.loop.evaluate_every):
                score = evaluate_dev(run, parts, config)
                if step > slow or step == total:
                    run.select(score)  # keeps the best; out of patience, ends
            run.save_if_due(step)  # also on a stop signal

        if run.best is None:  # nothing is trained after slow weights that were taken over
            run.select(evaluate_dev(run, parts, config))
            run.save(run.step)
        run.restore_best(*parts.tracked)
        parts.slow.settle()
        if config.method.memory:
            parts.lora.attach()
        dev = measure(parts, config, "dev").metrics
        run.log(run.step, "dev", **{f"dev/final_{name}": each.value for name, each in dev.items()})
        metrics, items, sets = measure(parts, config)
        if sets:
            write_of_all(run.folder, sets)
        for line in told(metrics, parts.world):
            log.info("%s", line)
        contact_sheet(parts, config, controls_of(config), run.folder)
        return run.finish(metrics, items)


def evaluate_dev(run: Run, parts: Parts, config: TrainConfig) -> float:
    """The metric that selects, on dev: with memories once the network has an adapter."""
    from common.run.items import score_of
    from slowfast_vgen.evaluate import generated
    from slowfast_vgen.objective import selection_of

    with parts.slow.averaged():
        items = generated(parts, config, "dev", config.evaluation.dev)
    metric = selection_of(config).metric
    phases = {str(item.slices["phase"]) for item in items}
    by_phase = {
        f"{metric}@phase_{phase}": score_of([each for each in items if each.slices["phase"] == phase], metric)
        for phase in sorted(phases)
    }
    score = score_of(items, metric)
    run.log(run.step, "dev", **{metric: score}, **by_phase)
    return score


@entry("pkg://conf.slowfast_vgen")
def main(cfg: DictConfig) -> float:
    """Returns the place accuracy on the test split, or the PSNR in a world without a catalogue."""
    from slowfast_vgen.objective import headline

    return headline(train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test)


if __name__ == "__main__":
    main()
