"""Train one method on one data set with one seed, select on dev, test once. The same command continues a run.

python -m perk.train +experiment=babilong_qa1                            the published set-up
python -m perk.train +experiment=babilong_qa1 scale=cpu                  all of it on one core, no files needed
python -m perk.train -m +sweep=main scale=cpu hydra/launcher=local       the runs behind a table
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.run.entry import entry
from common.run.schema import to_typed
from perk.config import Labels, Learner, TrainConfig

if TYPE_CHECKING:
    from common.run.results import Results
    from common.run.run import Run
    from perk.build import Parts
    from perk.data import Splits

ConfigStore.instance().store(name="perk_schema", node=TrainConfig)  # each paper its own: tests load several


def train(config: TrainConfig, folder: Path) -> Results:
    """Train one method on one data set with one seed, select on dev, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from common.language.gradient_check import check_gradient
    from common.language.training import export_selected, make_outer
    from common.run import rate_record
    from common.run.batches import Batches
    from common.run.run import Run, RunIdentity
    from perk import data
    from perk.build import build, look
    from perk.evaluate import foresee, measure, measure_shortcuts
    from perk.objective import SELECTION
    from perk.problems import relabelled

    who = RunIdentity("perk", config.experiment, config.method.name, config.scale, config.seed)
    settings = (config.runtime, config.tracker, config.loop)
    with Run(folder, config, *settings, who, SELECTION, config.evaluation.patience) as run:
        if run.finished:
            return run.results
        data.check_version(config.data)
        foresee(config)
        splits = data.load(config.data)
        run.fix(data.digests(config.data, splits))  # continued on these only
        if config.method.learner is Learner.shortcuts:
            metrics, items = measure_shortcuts(splits, config)
            return run.finish(metrics, items)

        parts = build(config, run.device, run.dtype)
        look(parts, splits, config)
        learner, rates = parts.learner, parts.rates
        fresh = relabelled if config.method.labels is Labels.shuffled else None
        batches = Batches(splits["train"], config.outer.batch_problems, config.seed, fresh)
        total = config.outer.total_steps(len(splits["train"]))
        outer = make_outer(run, parts, config.outer, total, config.outer.schedule)

        if run.restore() == 0:
            check_gradient(run, parts, outer, config.inner, batches[0])
            evaluate_dev(run, parts, splits, config)
        for step in run.steps(total, outer):  # starts where the checkpoint ended; a study's branches, too
            outer_loss = 0.0
            for problems in batches.of(step, config.outer.accumulation):
                for group in learner.groups(problems):
                    fast = learner.memorise(group, training=True)  # inner loop: segments into weights
                    loss = learner.answer_loss(fast, group)  # outer loss: questions, without the context
                    outer_loss += outer.accumulate(loss)  # backward, through the inner loop
                    del fast, loss  # one graph at a time is alive
            norm = outer.step()  # reduce, clip, AdamW, schedule
            if run.due(config.loop.log_every):
                shown = {**learner.measured, **rate_record.summary(rates), **run.cost}
                run.log(step, "train", outer_loss=outer_loss, grad_norm=norm, **shown)
            if run.due(config.loop.evaluate_every):
                run.select(evaluate_dev(run, parts, splits, config))  # keeps the best; out of patience, ends
            run.save_if_due(step)  # also on a stop signal

        step = run.restore_best(*parts.tracked) or run.step
        rate_record.select(run.folder, step)
        export_selected(run.folder, parts)
        metrics, items = measure(parts, splits["test"], config)
        return run.finish(metrics, items)


def evaluate_dev(run: Run, parts: Parts, splits: Splits, config: TrainConfig) -> float:
    """Accuracy on dev, logged beside the inner rates that gave it."""
    from common.run import rate_record
    from common.run.items import score_of
    from perk.evaluate import respond
    from perk.objective import SELECTION

    score = score_of(respond(parts, splits["dev"], config, select=True), SELECTION.metric)
    run.log(run.step, "dev", **{SELECTION.metric: score})
    if not run.state.branch:
        rate_record.note(run.folder, run.step, parts.rates)
    return score


@entry("pkg://conf.perk")
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy, of several shortcuts the best one's."""
    from perk.objective import SELECTION

    return SELECTION.headline(train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test)


if __name__ == "__main__":
    main()
