"""Room 5, the entry: configuration to objects, then the loop.

python -m reckoning.train +experiment=proofwriter              the published set-up
python -m reckoning.train +experiment=proofwriter scale=cpu    all of it on two cores, no files needed
"""

from __future__ import annotations

import time
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
    from common.run import Run
    from reckoning.build import Parts

MODEL = "model"
"""Folder in the run folder: the selected weights and the tokenizer, for plain `from_pretrained`."""

ConfigStore.instance().store(name="schema", node=TrainConfig)


def train(config: TrainConfig, folder: Path) -> Results:
    """Train one method on one data set with one seed, select on dev, test once.

    A folder with a checkpoint is continued, a finished one is not touched again.

    Raises:
        UserError: what the user gave cannot be run; the message says what and the way out.
    """
    from common import rate_record
    from common.environment import peak_memory_bytes
    from common.export import export
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
            metrics, predictions = shortcut_rows(splits, config)
            run.log(0, "test", **{name: interval.value for name, interval in metrics.items()})
            return run.finish(metrics, predictions)

        parts = build(config, splits, run.device, run.dtype)
        network = parts.model.network.train()  # from_pretrained leaves dropout off
        total = config.outer.total_steps(len(splits["train"]))
        outer = Outer(config.outer, network, parts.rates, total)
        batches = Batches(splits["train"], config.outer.batch_problems, config.seed)
        run.track("model", network)
        run.track("rates", parts.rates)
        run.track("outer", outer)

        if run.restore() == 0:
            run.log(0, "dev", accuracy=accuracy(respond(parts, splits["dev"], config, select=True)))
            _note_rates(config, parts, run)
        for step in run.steps(total):
            began, loss = time.monotonic(), 0.0
            for part in range(config.outer.accumulation):
                batch = batches[(step - 1) * config.outer.accumulation + part]
                loss += outer.accumulate(parts.learner.losses(batch))
            norm = outer.step()
            if run.due(config.loop.log_every):
                shown = {**parts.learner.measured, **_shown_rates(config, parts)}
                shown |= {"cost/seconds_per_step": time.monotonic() - began}
                shown |= {"cost/peak_memory_bytes": peak_memory_bytes(run.device)}
                run.log(step, "train", outer_loss=loss, grad_norm=norm, **shown)
            if run.due(config.loop.evaluate_every):
                score = accuracy(respond(parts, splits["dev"], config, select=True))
                run.log(step, "dev", accuracy=score)
                _note_rates(config, parts, run)
                run.note_best(score)
                if _out_of_patience(config, step, run.best):
                    run.end_early()
            run.save_if_due(step)

        rate_record.select(folder, run.restore_best("model", "rates") or run.step)
        export(folder / MODEL, network, parts.templates.tokenizer)
        items = respond(parts, splits["test"], config)
        metrics = summarise(items, config.evaluation.confidence)
        run.log(run.step, "test", **{name: interval.value for name, interval in metrics.items()})
        return run.finish(metrics, map(to_json, items))


def _shown_rates(config: TrainConfig, parts: Parts) -> dict[str, float]:
    if config.method.learner is not Learner.reckoning:
        return {}
    return {f"rates/{name}": value for name, value in parts.rates.summary().items()}


def _note_rates(config: TrainConfig, parts: Parts, run: Run) -> None:
    from common import rate_record

    if config.method.learner is Learner.reckoning:
        rate_record.note(run.folder, run.step, parts.rates)


def _out_of_patience(config: TrainConfig, step: int, best: dict[str, float] | None) -> bool:
    """Counted from the run's own record of its best step, so that a restart does not begin to count anew."""
    evaluated = config.loop.evaluate_every * config.evaluation.patience
    return evaluated > 0 and best is not None and step - best["step"] >= evaluated


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy, of several shortcuts the best one's."""
    test = train(to_typed(cfg, TrainConfig), Path(HydraConfig.get().runtime.output_dir)).test
    return test["accuracy"].value if "accuracy" in test else max(interval.value for interval in test.values())


if __name__ == "__main__":
    main()
