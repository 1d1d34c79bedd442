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
    from common.run.run import Run
    from reckoning.build import Parts
    from reckoning.data import Splits

ConfigStore.instance().store(name="schema", node=TrainConfig)


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
    from reckoning import data
    from reckoning.build import build
    from reckoning.evaluate import measure
    from reckoning.objective import SELECTION
    from reckoning.sampler import reshuffled
    from reckoning.shortcut_rows import shortcut_rows

    who = RunIdentity("reckoning", config.experiment, config.method.name, config.scale, config.seed)
    settings = (config.runtime, config.tracker, config.loop)
    with Run(folder, config, *settings, who, SELECTION, config.evaluation.patience) as run:
        if run.finished:
            return run.results
        splits = data.load(config.data)
        run.fix(data.digests(splits))  # continued on these only
        if config.method.learner is Learner.shortcuts:
            metrics, items = shortcut_rows(splits, config)
            return run.finish(metrics, items)

        parts = build(config, splits, run.device, run.dtype)
        learner, rates = parts.learner, parts.rates
        fresh = reshuffled if config.method.reshuffle else None
        batches = Batches(splits["train"], config.outer.batch_problems, config.seed, fresh)
        total = config.outer.total_steps(len(splits["train"]))
        outer = make_outer(run, parts, config.outer, total)

        if run.restore() == 0:
            check_gradient(run, parts, outer, config.inner, batches[0])
            evaluate_dev(run, parts, splits, config)
        for step in run.steps(total, outer):  # starts where the checkpoint ended; a study's branches, too
            outer_loss = 0.0
            for problems in batches.of(step, config.outer.accumulation):
                for group in learner.groups(problems):
                    fast = learner.memorise(group, training=True)  # inner loop: facts into weights
                    loss = learner.answer_loss(fast, group)  # outer loss: questions, without the facts
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
    from reckoning.evaluate import respond
    from reckoning.objective import SELECTION

    score = score_of(respond(parts, splits["dev"], config, select=True), SELECTION.metric)
    run.log(run.step, "dev", **{SELECTION.metric: score})
    if not run.state.branch:
        rate_record.note(run.folder, run.step, parts.rates)
    return score


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy, of several shortcuts the best one's."""
    from reckoning.objective import SELECTION

    return SELECTION.headline(train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test)


if __name__ == "__main__":
    main()
