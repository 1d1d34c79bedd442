"""Published cells joined with the runs that fill them: values, intervals, verdicts."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from common.run import results
from common.tables.estimates import Estimate, Scores, over_items, over_values
from common.tables.intervals import accuracy_interval
from common.tables.published import Cell, Overrides, Published, Table
from common.tables.runs import SHORTCUTS, Run, group_of, right

BEST_RULE = "best_rule"
"""Metric of shortcut runs: the best of their rules on the test split, which flatters it."""
NO_RULES = ("chance", "majority")
SCORES = ("label_match", "exact")
"""Fields of items that say whether the answer is right by another measure; null where it does not apply."""
WIDTH = 1.96
"""Half the width of a 95 % interval, in standard deviations."""
Settings = Callable[[Overrides], dict[str, Any]]
"""Overrides of a cell's run -> the settings that its hash covers, by dotted key, but for the seed."""


class Verdict(StrEnum):
    """What a row says about the row it is compared with."""

    holds = "ordering holds"
    fails = "ordering fails"
    better = "better"
    """The paper's order is not known."""
    worse = "worse"
    open = "not decided"
    """The interval of the difference holds zero."""
    within = "within tolerance"
    outside = "outside tolerance"
    missing = "not run"


@dataclass(frozen=True)
class Filled:
    """A cell with what was reproduced; shares are of 1 where the table's unit is per cent."""

    cell: Cell
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    verdict: Verdict | None = None
    apart: tuple[float, float, float] | None = None
    """Difference to the row it is compared with, and its interval."""
    missing: tuple[Overrides, ...] = ()
    """Runs without which it cannot be filled."""
    rule: str = ""
    """Which shortcut rule was the best."""

    @property
    def difference(self) -> float | None:
        """Reproduced less published, in the unit of the value."""
        known = self.cell.published
        return None if known is None or known.value is None or self.value is None else self.value - known.value


@dataclass
class _Sample:
    """What the runs of one cell say."""

    estimate: Estimate
    seeds: tuple[int, ...]
    reach: tuple[float, float]
    """How far below and above its value the interval reaches at least."""
    rule: str = ""


@dataclass
class Joined:
    """A table with its cells filled."""

    table: Table
    scale: str
    cells: list[Filled]
    runs: list[Run] = field(default_factory=list)
    """All runs that stand behind it."""
    found: dict[Overrides, dict[int, Run]] = field(default_factory=dict)
    """The finished runs of each of its settings, by seed."""

    @property
    def missing(self) -> list[Overrides]:
        """The runs that are not there, each once."""
        return list(dict.fromkeys(run for cell in self.cells for run in cell.missing))


def join(table: Table, runs: Iterable[Run], settings: Settings, scale: str) -> Joined:
    """Fill every cell of `table` from finished runs with equal settings, whatever their folders are called."""
    there: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        there[_key(run.keys)].setdefault(run.results.seed, run)
    found: dict[Overrides, dict[int, Run]] = {}
    used: dict[str, Run] = {}
    cells = list(table.cells())
    for words in dict.fromkeys(words for cell in cells for words in (*cell.runs, *cell.minus)):
        found[words] = there.get(_key(settings(words)), {})
        used |= {str(run.folder): run for run in found[words].values()}
    percent = table.unit == "%"
    samples = {(cell.row, cell.column): _sample(cell, found) for cell in cells}
    filled = [_filled(table, cell, samples, found, percent, scale) for cell in cells]
    return Joined(table, scale, filled, list(used.values()), found)


def _key(keys: Mapping[str, Any]) -> str:
    return json.dumps(keys, sort_keys=True)


def _filled(
    table: Table,
    cell: Cell,
    samples: Mapping[tuple[str, str], _Sample | None],
    found: Mapping[Overrides, Mapping[int, Run]],
    percent: bool,
    scale: str,
) -> Filled:
    sample = samples[cell.row, cell.column]
    if sample is None:
        missing = tuple(words for words in (*cell.runs, *cell.minus) if not found[words])
        return Filled(cell, verdict=Verdict.missing if cell.runs else None, missing=missing)
    factor = 100.0 if percent else 1.0
    value = sample.estimate.value * factor
    low, high = (end * factor for end in sample.estimate.interval())
    low, high = min(low, value - sample.reach[0] * factor), max(high, value + sample.reach[1] * factor)
    if percent and not cell.minus:
        low, high = max(low, 0.0), min(high, 100.0)
    verdict, apart = None, None
    other = samples.get((table.rows[cell.row].against, cell.column))
    if other is not None and sample.seeds == other.seeds:
        difference = (sample.estimate - other.estimate) * factor
        apart = (difference.value, *difference.interval())
        verdict = _ordering(cell.published, _published(table, cell), apart, table.higher_is_better)
    tolerance = table.columns[cell.column].tolerance or table.rows[cell.row].tolerance
    if scale == "paper" and tolerance and cell.published is not None and cell.published.value is not None:
        near = abs(value - cell.published.value) <= tolerance
        verdict = Verdict.within if near else Verdict.outside
    return Filled(cell, value, low, high, len(sample.seeds), verdict, apart, rule=sample.rule)


def _published(table: Table, cell: Cell) -> Published | None:
    """The published number of the row that `cell` is compared with."""
    against = table.rows[cell.row].against
    return next((each.published for each in table.cells() if (each.row, each.column) == (against, cell.column)), None)


def _ordering(
    ours: Published | None, theirs: Published | None, apart: tuple[float, float, float], higher_is_better: bool
) -> Verdict:
    _, low, high = apart
    if low <= 0 <= high:
        return Verdict.open
    if ours is None or theirs is None or ours.value is None or theirs.value is None or ours.value == theirs.value:
        return Verdict.better if (low > 0) == higher_is_better else Verdict.worse
    return Verdict.holds if (ours.value > theirs.value) == (low > 0) else Verdict.fails


def _sample(cell: Cell, found: Mapping[Overrides, Mapping[int, Run]]) -> _Sample | None:
    """What the cell's runs say; None where one is missing. Only seeds that all of them have count."""
    sides = [found[words] for words in (*cell.runs, *cell.minus)]
    seeds = sorted(set.intersection(*(set(runs) for runs in sides))) if sides else []
    if not seeds:
        return None
    total, squares, rule = Estimate(0.0), np.zeros(2), ""
    for sign, settings in ((1.0, cell.runs), (-1.0, cell.minus)):
        for place, words in enumerate(settings):
            runs = [found[words][seed] for seed in seeds]
            metric = cell.metric
            name, _, part = metric.partition("@")
            if name == BEST_RULE:
                rule = _best_rule(runs, part)
                metric = f"{rule}@{part}" if part else rule
            share = sign / len(settings)
            read = [scores_of(run, metric) for run in runs]
            kept = [scores for scores in read if scores is not None]
            if len(kept) == len(runs):
                total += over_items(f"{metric} {' '.join(words)}", kept, items=str(place)) * share
                squares += (share * np.array(_reach(kept))) ** 2
                continue
            named = [each for run in runs if (each := run.results.test.get(metric)) is not None]
            if len(named) < len(runs):
                return None
            within = (named[0].high - named[0].low) / (2 * WIDTH)
            total += over_values(f"{metric} {' '.join(words)}", [each.value for each in named], within) * share
    below, above = (0.0, 0.0) if cell.minus else np.sqrt(squares).tolist()
    return _Sample(total, tuple(seeds), (below, above), rule.removeprefix("accuracy_").replace("_", " "))


def _reach(runs: Sequence[Scores]) -> tuple[float, float]:
    """How far Wilson's interval of the pooled items reaches below and above their share: nothing but right answers vary
    in no sample and yet are not certain. Zeros where an item is more than right or wrong.
    """
    if any((run.parts % 1).any() for run in runs):
        return 0.0, 0.0
    correct: list[float] = []
    groups: list[str] = []
    for run in runs:
        for name, part, whole in zip(run.groups, run.parts, run.wholes, strict=True):
            correct += [1.0] * int(part) + [0.0] * int(whole - part)
            groups += [name] * int(whole)
    pooled = accuracy_interval(correct, groups)
    return pooled.value - pooled.low, pooled.high - pooled.value


def _best_rule(runs: Sequence[Run], chosen: str) -> str:
    """The best rule on the test items, or on those of a slice of them such as `length_2048`."""
    names = [name for name in runs[0].results.test if "@" not in name]
    rules = [name for name in names if name.removeprefix("accuracy_") not in NO_RULES]

    def value(run: Run, name: str) -> float:
        scores = scores_of(run, f"{name}@{chosen}") if chosen else None
        return scores.value if scores is not None else run.results.test[name].value

    return max(rules, key=lambda name: sum(value(run, name) for run in runs))


def scores_of(run: Run, metric: str) -> Scores | None:
    """A metric of one run summed by context; None for one that is not counted from items, such as a time.

    `<metric>@<field>_<value>` counts the items with that value alone: `best_rule@length_2048`. Items of a further pass
    over the test split, which changed a field, count only where that field chooses.
    """
    if not run.learner:
        return None  # no items, such as a run of the run-time study
    counted: list[tuple[str, float, float]] = []
    metric, _, chosen = metric.partition("@")
    field, _, value = chosen.partition("_")
    choosing = field or metric.removeprefix("accuracy_").partition("_")[0]
    for item in results.read_predictions(run.folder):
        if (chosen and str(item.get(field)) != value) or item.get("further") not in (None, choosing):
            continue
        pair = _pair(item, metric, run.learner == SHORTCUTS)
        if pair is None:
            return None
        if metric == "accuracy_chance" and isinstance(item.get("chance"), str):
            return None  # drawn; its value is known without counting
        counted.append((group_of(item), *pair))
    found = Scores.of(counted)
    return found if found.groups else None


def _pair(item: Mapping[str, Any], metric: str, rules: bool) -> tuple[float, float] | None:
    """What one item adds to the metric's numerator and denominator; None for an unknown metric."""
    kind, _, name = metric.partition("_")
    if rules and kind == "accuracy":
        return (right(item, name), 1.0) if name in item else None
    if kind == "accuracy":
        field, _, value = name.partition("_")  # a field of the items and its value, else an answer
        chosen = not name or (str(item[field]) == value if value and field in item else item["answer"] == name)
        return float(item["correct"]) * chosen, float(chosen)
    if metric in SCORES and metric in item:
        return (0.0, 0.0) if item[metric] is None else (float(item[metric]), 1.0)
    if kind == "recall" and name in ("published", "exact", "precision", "recall"):
        recall = item.get("recall")
        if recall is None:
            return 0.0, 0.0
        if name == "published":
            return float(recall["matching"]), float(recall["pieces"])
        return float(recall[name]), 1.0
    return None
