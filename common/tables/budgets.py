"""Budget studies: what more training changes on dev, and from which budget on it changes nothing.

A run with `outer.multiples` says what several budgets come to (`common.run.branches`). A study is all such runs on the
same data and model: the methods that are compared there, each at some learning rates, of which the best on dev counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.run.branches import BRANCH
from common.run.folder import read_records
from common.tables.cells import Measure
from common.tables.damaged import reading
from common.tables.kept import digest_of
from common.tables.runs import MAY_DIFFER, Run

RATE, STEPS, MULTIPLES = "outer.lr", "outer.steps", "outer.multiples"
TRIED = (RATE, STEPS, "outer.warmup", "outer.decay", MULTIPLES)
"""What runs of one method differ in when their budget is sought."""
AFTERWARDS = ("evaluation.", "loop.")
"""Keys that change no training."""
ENOUGH = 2.0
"""Points on dev: a budget is enough where none beyond it changes any method by so much."""


@dataclass(frozen=True)
class Point:
    """What training for so long comes to on dev, in the unit of the score."""

    steps: int
    score: float
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One method at one learning rate."""

    run: Run
    rate: float
    points: tuple[Point, ...]
    """A point a budget, ascending."""
    curve: tuple[Point, ...]
    """Dev scores on the way, at a rate that has not fallen yet."""


@dataclass(frozen=True)
class Study:
    """All trials on the same data and model, by method (`method_of`), each by rate."""

    trials: Mapping[str, Sequence[Trial]]

    @property
    def measure(self) -> Measure:
        """How its scores are read."""
        return next(iter(self.trials.values()))[0].run.selected_by[1]

    def best(self, method: str) -> Trial:
        """The trial that is the best at the largest budget, of equal ones at the one before, then the lowest rate."""
        sign = 1 if self.measure.higher_is_better else -1
        return max(self.trials[method], key=lambda trial: [sign * point.score for point in reversed(trial.points)])

    @property
    def enough(self) -> int | None:
        """The smallest budget in outer steps beyond which no method changes by `ENOUGH`; None: all are still learning.

        The largest budget is never enough, as nothing lies beyond it to tell.
        """
        chosen = [{point.steps: point.score for point in self.best(method).points} for method in self.trials]
        budgets = sorted(set.intersection(*map(set, chosen)))
        found = None
        for steps, more in reversed(list(zip(budgets, budgets[1:], strict=False))):
            if any(abs(scores[more] - scores[steps]) >= ENOUGH for scores in chosen):
                break
            found = steps
        return found

    def learning(self, steps: int) -> bool:
        """Would more than `steps` outer steps still change what a method comes to?"""
        return self.enough is None or steps < self.enough


def data_of(keys: Mapping[str, Any]) -> str:
    """Digest of the data and the model that settings (`Run.keys`) train with. Those of the test split alone, whose keys
    end in a word with `test`, are no part of it.
    """
    own = {key: value for key, value in keys.items() if not key.startswith((*MAY_DIFFER, *AFTERWARDS))}
    return digest_of({key: value for key, value in own.items() if not key.rpartition(".")[2].startswith("test")})


def method_of(keys: Mapping[str, Any]) -> str:
    """Digest of how settings train, but for rate and budget."""
    own = {key: value for key, value in keys.items() if key.startswith(MAY_DIFFER) and key not in TRIED}
    return digest_of({key: value for key, value in own.items() if not key.startswith(AFTERWARDS)})


def studies_of(runs: Iterable[Run]) -> dict[str, Study]:
    """The studies among `runs`, by their data (`data_of`). Of several seeds the lowest counts.

    Raises:
        DamagedRun: the metrics of a run cannot be read.
    """
    found: dict[str, dict[str, dict[float, Trial]]] = defaultdict(lambda: defaultdict(dict))
    for run in sorted((run for run in runs if run.keys.get(MULTIPLES)), key=lambda run: run.results.seed):
        if (trial := _trial(run)).points:
            found[data_of(run.keys)][method_of(run.keys)].setdefault(trial.rate, trial)
    return {
        data: Study({method: [trials[rate] for rate in sorted(trials)] for method, trials in methods.items()})
        for data, methods in found.items()
    }


def learning(run: Run, studies: Mapping[str, Study]) -> bool:
    """Would more steps than those of `run` still change what it comes to, by the study of its data among `studies`?"""
    study = None if run.of_rules else studies.get(data_of(run.keys))
    return study is not None and bool(run.keys.get(STEPS)) and study.learning(int(run.keys[STEPS]))


def _trial(run: Run) -> Trial:
    with reading(run.folder):
        records = read_records(run.folder)
    metric, measure = run.selected_by
    curve = _points(records, f"dev/{metric}", measure.factor)
    branches = _points(records, f"{BRANCH}/{metric}", measure.factor)
    return Trial(run, float(run.keys[RATE]), (*branches, *curve[-1:]), curve)


def _points(records: Iterable[Mapping[str, Any]], name: str, factor: float) -> tuple[Point, ...]:
    there = [record for record in records if isinstance(record.get(name), (int, float))]
    return tuple(Point(int(each["step"]), factor * each[name], float(each["time"])) for each in there)
