"""Measure what reading knowledge once costs, and what every question does (paper, section 4.4).

    python -m reckoning.cost                                     GPT-2 small, 1024 tokens, its files needed
    python -m reckoning.cost scale=cpu                           the embedded model, 512 tokens
    python -m reckoning.cost -m scale=cpu inner.steps=1,2,4
    python -m reckoning.cost -m +sweep=run_time scale=cpu        the runs behind a table of published.yaml
    python -m reckoning.cost shape.layers=4 shape.width=256 repeats=5

A run folder like any other. `results.json` has, for every way to answer,

seconds_read_<way>, seconds_question_<way>    the line through the measured times: what is done once, and each question
seconds_<n>_<way>                             measured in all, for 1 and 18 questions
bytes_<way>                                   most memory above the model, with the largest number of questions
break_even_<way>_over_<other>                 from how many questions on the one takes less time; where there is no such
                                              number, the metric is missing and `cost.jsonl` says "never"

`cost.jsonl` has the points of the curves as well.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from common.errors import UserError
from common.run.entry import entry
from common.run.results import Interval
from common.run.schema import to_typed
from common.tables.breakeven import Line, break_even
from reckoning.cost_config import CostConfig

if TYPE_CHECKING:
    import numpy as np
    import torch

    from common.run.results import Results
    from reckoning.reading import Example, Way

logger = logging.getLogger(__name__)
CURVE = "cost.jsonl"
METHOD = "run_time"
REPORTED = (1, 18)
"""Numbers of questions with a metric of their own: one, and the questions of a ProofWriter theory."""
RESAMPLES = 1000
NO_END = 1e9
"""Upper end of a break-even's interval in `results.json` where some resamples have none: JSON has no infinity."""


ConfigStore.instance().store(name="cost_schema", node=CostConfig)


def line_through(totals: Mapping[int, float]) -> Line:
    """Least squares of the relative error, neither part below 0; `totals`: number of questions -> seconds."""
    import numpy as np
    from scipy.optimize import nnls

    rows = np.array([[1 / seconds, number / seconds] for number, seconds in totals.items()])
    (read, question), _ = nnls(rows, np.ones(len(rows)))
    return Line(float(read), float(question))


def measure(example: Example, there: Mapping[str, Way], config: CostConfig, device: torch.device) -> dict[str, Any]:
    """way -> number of questions -> [repeats][seconds of reading, seconds of asking].

    Every round goes through all ways, so that a slow moment of the machine meets all of them. Ways that read alike
    share one reading a round.
    """
    from common.run.progress import Progress

    found: dict[str, Any] = {name: {n: [] for n in _numbers(way, config)} for name, way in there.items()}
    with Progress(0, config.warmup + config.repeats, name="rounds") as progress:
        for round_number in range(config.warmup + config.repeats):
            readings: dict[Any, tuple[Any, float]] = {}
            for name, way in there.items():
                if way.read not in readings:
                    readings[way.read] = _timed(way.read, device)
                reading, reading_seconds = readings[way.read]
                for number, seconds in found[name].items():
                    _, asking = _timed(partial(way.ask, reading, example.questions[:number]), device)
                    if round_number >= config.warmup:
                        seconds.append((reading_seconds, asking))
            progress.update(round_number + 1)
    return found


def _numbers(way: Way, config: CostConfig) -> list[int]:
    return [n for n in sorted(set(config.questions)) if not way.rereads or n <= config.reread_most]


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    began = now()
    result = work()
    return result, now() - began


def _peak(way: Way, questions: torch.Tensor, device: torch.device) -> int:
    from common.engine.cuda.sizes import MemoryMeter, give_back

    give_back(device)
    with MemoryMeter(device) as meter:
        way.ask(way.read(), questions)
    return meter.peak


class Summary:
    """Medians, lines and break-even numbers of measured seconds, with intervals from resampled rounds."""

    def __init__(self, measured: Mapping[str, Mapping[int, Any]], confidence: float, seed: int) -> None:
        """`measured` as `measure` returns it."""
        import numpy as np

        self.names = list(measured)
        self.numbers = {name: list(own) for name, own in measured.items()}
        seconds = {name: np.array([own[n] for n in own]).swapaxes(0, 1) for name, own in measured.items()}
        self.repeats = len(next(iter(seconds.values())))
        self.confidence = confidence
        rounds = np.random.default_rng(seed).integers(self.repeats, size=(RESAMPLES, self.repeats))
        # [points, (reading, asking)], and a resample of the rounds before that
        self.medians = {name: np.median(own, axis=0) for name, own in seconds.items()}
        self.drawn = {name: np.median(own[rounds], axis=1) for name, own in seconds.items()}
        self.lines = {name: self._line(name, own) for name, own in self.medians.items()}
        self._lines = {name: [self._line(name, own) for own in drawn] for name, drawn in self.drawn.items()}

    def _line(self, name: str, medians: np.ndarray) -> Line:
        reading, asking = medians.T.tolist()
        line = line_through(dict(zip(self.numbers[name], asking, strict=True)))
        return Line(reading[0] + line.read, line.question)  # one reading a round serves all points

    def _interval(self, value: float, drawn: Sequence[float]) -> Interval:
        import numpy as np

        ends = [(1 - self.confidence) / 2, (1 + self.confidence) / 2]
        low, high = np.quantile(drawn, ends, method="nearest").tolist()  # between numbers: not with an infinite one
        return Interval(value, self.repeats, low, high)

    def total(self, name: str, number: int) -> Interval:
        """Seconds of reading and of `number` questions."""
        place = self.numbers[name].index(number)
        return self._interval(float(self.medians[name][place].sum()), self.drawn[name][:, place].sum(-1).tolist())

    def reading(self, name: str) -> float:
        """Measured seconds of reading, the same for every number of questions."""
        return float(self.medians[name][0, 0])

    def read(self, name: str) -> Interval:
        """Seconds of what is done once."""
        return self._interval(self.lines[name].read, [line.read for line in self._lines[name]])

    def question(self, name: str) -> Interval:
        """Seconds of every question."""
        return self._interval(self.lines[name].question, [line.question for line in self._lines[name]])

    def break_even(self, ours: str, other: str) -> Interval:
        """Number of questions, infinite for never."""
        drawn = [break_even(a, b) for a, b in zip(self._lines[ours], self._lines[other], strict=True)]
        return self._interval(break_even(self.lines[ours], self.lines[other]), drawn)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every two ways, both ways round."""
        return itertools.permutations(self.names, 2)


def records_of(summary: Summary, peaks: Mapping[str, Mapping[int, int]]) -> list[dict[str, Any]]:
    """What `cost.jsonl` holds: points of the curves, the lines through them, and where the lines cross."""
    found: list[dict[str, Any]] = []
    for name in summary.names:
        for number in summary.numbers[name]:
            point = {"kind": "point", "way": name, "questions": number, "seconds": asdict(summary.total(name, number))}
            found.append({**point, "seconds_reading": summary.reading(name), "bytes": peaks[name][number]})
        read, question = asdict(summary.read(name)), asdict(summary.question(name))
        line = {"kind": "line", "way": name, "seconds_read": read, "seconds_question": question}
        found.append(line)
    for ours, other in summary.pairs():
        crossing = {
            key: "never" if value == math.inf else value
            for key, value in asdict(summary.break_even(ours, other)).items()
        }
        found.append({"kind": "break_even", "way": ours, "over": other, "questions": crossing})
    return found


def metrics_of(summary: Summary, peaks: Mapping[str, Mapping[int, int]]) -> dict[str, Interval]:
    """What `results.json` holds."""
    metrics = {}
    for name in summary.names:
        metrics[f"seconds_read_{name}"] = summary.read(name)
        metrics[f"seconds_question_{name}"] = summary.question(name)
        for number in REPORTED:
            if number in summary.numbers[name]:
                metrics[f"seconds_{number}_{name}"] = summary.total(name, number)
        most = peaks[name][summary.numbers[name][-1]]
        metrics[f"bytes_{name}"] = Interval(most, 1, most, most)
    for ours, other in summary.pairs():
        crossing = summary.break_even(ours, other)
        if math.isfinite(crossing.value):
            metrics[f"break_even_{ours}_over_{other}"] = replace(crossing, high=min(crossing.high, NO_END))
    return metrics


def study(config: CostConfig, folder: Path) -> Results:
    """Measure all ways on one model; a finished folder is not touched again.

    Raises:
        UserError: the model is not there, or reads fewer tokens than the protocol has.
    """
    from common.language import model as models
    from common.run.files import write_json_lines
    from common.run.run import Run, RunIdentity
    from reckoning.reading import LETTERS, example_of, ways

    who = RunIdentity("reckoning", config.experiment, METHOD, config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who) as run:
        if run.finished:
            return run.results
        where: dict[str, Any] = {"device": run.device, "dtype": run.dtype, "autocast": config.runtime.autocast}
        if config.shape.layers:
            sizes = config.shape.layers, config.shape.width, config.shape.heads, config.shape.vocabulary
            if config.shape.vocabulary < LETTERS:
                raise UserError(f"shape.vocabulary={config.shape.vocabulary}: use {LETTERS} (letters) or more")
            model = models.of_shape(*sizes, config.tokens, config.model, **where)
        else:
            model = models.load(config.model, LETTERS, **where)
        if model.window < config.tokens:
            raise UserError(
                f"tokens={config.tokens}: the model reads at most {model.window}; use tokens={model.window}"
            )
        model.network.eval()
        example = example_of(config.tokens, config.facts, max(config.questions), seed=config.seed, device=run.device)
        there = ways(model, config.inner, example, capture=config.runtime.capture)
        measured = measure(example, there, config, run.device)
        peaks = {
            name: {n: _peak(way, example.questions[:n], run.device) for n in _numbers(way, config)}
            for name, way in there.items()
        }
        summary = Summary(measured, config.confidence, config.seed)
        write_json_lines(folder / CURVE, records_of(summary, peaks))
        metrics = metrics_of(summary, peaks)
        for name in summary.names:
            read, question = summary.read(name).value, summary.question(name).value
            logger.info("%s: %.4g s once, %.4g s a question", name, read, question)
        return run.finish(metrics)


@entry("pkg://conf.reckoning.cost")
def main(cfg: DictConfig) -> float:
    """Returns RECKONING's seconds a question."""
    results = study(to_typed(cfg, CostConfig), Path(HydraConfig.get().runtime.output_dir))
    return results.test["seconds_question_reckoning"].value


if __name__ == "__main__":
    main()
