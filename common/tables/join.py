"""Published cells joined with the runs that fill them: values, intervals, verdicts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase

import numpy as np

from common.errors import UserError
from common.run.progress import shown
from common.tables.budgets import Study, data_of, learning, studies_of
from common.tables.cells import FILE, Axis, Cell, Measure, Overrides, Published, Role, Table
from common.tables.estimates import Estimate, Jackknife, Scores, over_items, over_values
from common.tables.intervals import Kind, is_share, share_interval, wilson
from common.tables.kept import digest_of
from common.tables.runs import Run, scores_of

WIDTH = 1.96
"""Half the width of a 95 % interval, in standard deviations."""
Settings = Callable[[Overrides], str]
"""Overrides of a cell's run -> digest of the settings that its hash covers, but for the seed (`kept.digest_of`)."""


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
    learning = "still learning"
    """A budget study of the same data shows that more steps change it."""
    weaker = "not against the best baseline"


@dataclass(frozen=True)
class Filled:
    """A cell with what was reproduced, in the unit of its column."""

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
    best: str = ""
    """Which of several metrics was the best."""
    counted: bool = False
    """Whether its numbers are of test items, and not measured another way, such as times."""
    stronger: str = ""
    """The best baseline on the same data in its column, where that is not the one it is compared with."""

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
    best: str = ""
    counted: bool = True


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
    runs = list(runs)
    there: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        there[digest_of(run.keys)].setdefault(run.results.seed, run)
    found: dict[Overrides, dict[int, Run]] = {}
    used: dict[str, Run] = {}
    cells = list(table.cells())
    needed = list(dict.fromkeys(words for cell in cells for words in (*cell.runs, *cell.minus)))
    for words in shown(needed, f"{table.paper} {table.name}, settings"):
        found[words] = there.get(settings(words), {})
        used |= {str(run.folder): run for run in found[words].values()}
    samples = {
        (cell.row, cell.column): _sample(cell, table, found)
        for cell in shown(cells, f"{table.paper} {table.name}, cells")
    }
    studies = studies_of(runs)
    filled = [_checked(table, _filled(table, cell, samples, found, scale), samples, found, studies) for cell in cells]
    return Joined(table, scale, filled, list(used.values()), found)


def _filled(
    table: Table,
    cell: Cell,
    samples: Mapping[tuple[str, str], _Sample | None],
    found: Mapping[Overrides, Mapping[int, Run]],
    scale: str,
) -> Filled:
    sample = samples[cell.row, cell.column]
    if sample is None:
        missing = tuple(words for words in (*cell.runs, *cell.minus) if not found[words])
        return Filled(cell, verdict=Verdict.missing if cell.runs else None, missing=missing)
    measure = table.measure(cell.column)
    factor = measure.factor
    value = sample.estimate.value * factor
    low, high = (end * factor for end in sample.estimate.interval())
    low, high = min(low, value - sample.reach[0] * factor), max(high, value + sample.reach[1] * factor)
    if measure.kind is Kind.share and not cell.minus:
        low, high = max(low, 0.0), min(high, factor)
    verdict, apart = None, None
    other = samples.get((table.rows[cell.row].against, cell.column))
    if other is not None and sample.seeds == other.seeds:
        difference = (sample.estimate - other.estimate) * factor
        apart = (difference.value, *difference.interval())
        verdict = _ordering(cell.published, _published(table, cell), apart, measure.higher_is_better)
    if table.rows[cell.row].claim:
        verdict = _claimed(table.rows[cell.row], apart, (low, high), measure.higher_is_better)
    tolerance = table.columns[cell.column].tolerance or table.rows[cell.row].tolerance
    if scale == "paper" and tolerance and cell.published is not None and cell.published.value is not None:
        near = abs(value - cell.published.value) <= tolerance
        verdict = Verdict.within if near else Verdict.outside
    return Filled(cell, value, low, high, len(sample.seeds), verdict, apart, best=sample.best, counted=sample.counted)


def _claimed(
    row: Axis, apart: tuple[float, float, float] | None, ends: tuple[float, float], higher_is_better: bool
) -> Verdict | None:
    """Whether a row's claim holds beyond the interval; None: the runs of the row it is against are not there."""
    if row.most is not None and not row.against:
        low, high = (row.most - end for end in reversed(ends))
    elif apart is None:
        return None
    else:
        _, low, high = apart if higher_is_better else (0.0, -apart[2], -apart[1])
    return Verdict.holds if low > 0 else Verdict.fails if high < 0 else Verdict.open


def _checked(
    table: Table,
    filled: Filled,
    samples: Mapping[tuple[str, str], _Sample | None],
    found: Mapping[Overrides, Mapping[int, Run]],
    studies: Mapping[str, Study],
) -> Filled:
    """The cell without its verdict where it, or what it is compared with, is still learning by its study, or where a
    method is compared with a baseline that is not the best one, which a row with a claim may be."""
    cell, against = filled.cell, table.rows[filled.cell.row].against
    cells = {each.row: each for each in table.cells() if each.column == cell.column}
    pair = [cell, *([cells[against]] if filled.apart else [])]
    trained = [run for each in pair for words in each.runs for run in list(found[words].values())[:1]]
    if filled.value is not None and any(learning(run, studies) for run in trained):
        return replace(filled, verdict=Verdict.learning)
    roles = (table.role(cell.row), table.role(against)) if filled.apart else ()
    fixed = table.rows[cell.row].claim or cell.minus  # a claim says beside which row; of differences none is the best
    if fixed or roles != (Role.method, Role.baseline):
        return filled
    sample, data = samples[cell.row, cell.column], {data_of(run.keys) for run in trained}
    rivals = {}
    for row in (against, *cells):  # of equal ones the first is the best
        other, its = samples[row, cell.column], cells[row]
        alike = its.metric == cell.metric and other and sample and other.seeds == sample.seeds
        alike = alike and data == {data_of(run.keys) for words in its.runs for run in found[words].values()}
        if other and (row == against or (alike and table.role(row) is Role.baseline)):
            rivals[row] = other.estimate.value
    best = table.measure(cell.column).best(rivals)
    return filled if best == against else replace(filled, verdict=Verdict.weaker, stronger=best)


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


def _sample(cell: Cell, table: Table, found: Mapping[Overrides, Mapping[int, Run]]) -> _Sample | None:
    """What the cell's runs say; None where one is missing. Only seeds that all of them have count.

    Raises:
        UserError: the column shows shares, and its metric is none.
    """
    sides = [found[words] for words in (*cell.runs, *cell.minus)]
    seeds = sorted(set.intersection(*(set(runs) for runs in sides))) if sides else []
    if not seeds:
        return None
    measure, paired = table.measure(cell.column), seeds if table.paired else ()
    total, squares, best, counted = Estimate(0.0), np.zeros(2), "", True
    for sign, settings in ((1.0, cell.runs), (-1.0, cell.minus)):
        for place, words in enumerate(settings):
            runs = [found[words][seed] for seed in seeds]
            metric = cell.metric
            if "*" in metric:
                metric, best = _best(runs, metric, measure)
            share = sign / len(settings)
            read = [scores_of(run, metric) for run in runs]
            kept = [scores for scores in read if scores is not None]
            if len(kept) == len(runs):
                _check_shares(cell, measure, kept)
                total += over_items(f"{metric} {' '.join(words)}", kept, items=str(place), paired=paired) * share
                squares += (share * np.array(_reach(kept) if measure.kind is Kind.share else (0.0, 0.0))) ** 2
                continue
            named = [each for run in runs if (each := run.results.test.get(metric)) is not None]
            if len(named) < len(runs):
                return None
            counted = False
            within = (named[0].high - named[0].low) / (2 * WIDTH)
            values = [each.value for each in named]
            total += over_values(f"{metric} {' '.join(words)}", values, within, paired=paired) * share
    below, above = (0.0, 0.0) if cell.minus else np.sqrt(squares).tolist()
    return _Sample(total, tuple(seeds), (below, above), best, counted)


def _check_shares(cell: Cell, measure: Measure, runs: Sequence[Scores | Jackknife]) -> None:
    strange = [run.value for run in runs if not is_share(run.value)]
    if measure.kind is Kind.share and strange:
        raise UserError(
            f"{FILE}: row {cell.row}, column {cell.column}: {cell.metric} is {strange[0]:.4g}, which is no share of 1; "
            "give the column another unit, or `kind: count` or `kind: quality`"
        )


def _reach(runs: Sequence[Scores | Jackknife]) -> tuple[float, float]:
    """How far Wilson's interval of the pooled items reaches below and above their share: nothing but right answers vary
    in no sample and yet are not certain. Zeros where an item is more than right or wrong. Of a share that only all
    items together have it is that of the mean at the mean number of items: the seeds share them.
    """
    counts = [run.count for run in runs if isinstance(run, Jackknife) and run.count is not None]
    if len(counts) == len(runs):
        share = sum(run.value for run in runs) / len(runs)
        low, high = wilson(share, sum(counts) / len(counts), WIDTH)
        return share - low, high - share
    scores = [run for run in runs if isinstance(run, Scores)]
    if len(scores) < len(runs) or any((run.parts % 1).any() for run in scores):
        return 0.0, 0.0
    parts, wholes = (np.concatenate([getattr(run, name) for run in scores]).tolist() for name in ("parts", "wholes"))
    pooled = share_interval(parts, [group for run in scores for group in run.groups], wholes=wholes)
    return pooled.value - pooled.low, pooled.high - pooled.value


def _best(runs: Sequence[Run], pattern: str, measure: Measure) -> tuple[str, str]:
    """The best of the metrics `accuracy_*` on the test items, which flatters it, or of `accuracy_*@length_2048` on a
    slice of them; and what the star stands for in it, in words. What the paper calls chance is left out.
    """
    form, _, chosen = pattern.partition("@")
    paper = runs[0].paper
    names = [
        name
        for name in runs[0].results.test
        if "@" not in name and fnmatchcase(name, form) and paper.rule(name).role is not Role.chance
    ]
    if not names:
        return pattern, ""

    def value(run: Run, name: str) -> float:
        scores = scores_of(run, f"{name}@{chosen}") if chosen else None
        return scores.value if scores is not None else run.results.test[name].value

    best = measure.best({name: sum(value(run, name) for run in runs) for name in names})
    start, _, end = form.partition("*")
    return f"{best}@{chosen}" if chosen else best, best.removeprefix(start).removesuffix(end).replace("_", " ")
