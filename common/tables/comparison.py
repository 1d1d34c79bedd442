"""Runs of one experiment side by side, whatever was published: which are comparable, their rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.errors import UserError
from common.run.results import Interval
from common.tables.cells import FILE, Measure, Role
from common.tables.estimates import Jackknife, Scores, over_items, over_values
from common.tables.intervals import Kind, ratio_interval
from common.tables.published import Comparison, known
from common.tables.runs import Run, scores_of

CONFIDENCE = 0.95
BLOCKS = (Role.method, Role.baseline, Role.control, Role.rule, Role.chance)
"""The order of rows, before that of their values."""


class Counted(NamedTuple):
    """What a row needs of a test item."""

    group: str
    part: float
    whole: float
    """0 in rows whose metric is not counted from items."""
    value: str | None
    """Of the slice that items are told apart by."""


@dataclass
class Row:
    """One line of a table: the runs of one method, or one rule, that differ in the seed."""

    title: str
    role: Role
    place: float
    """Where it stands among rows of its role."""
    metric: str
    measure: Measure
    seeds: list[list[Counted]]
    """By seed, the items of the test split as the data set has it; where some have the metric, only those."""
    scores: list[Scores | Jackknife]
    """By seed; none where the metric is not counted from items."""
    named: list[Interval]
    """By seed, what `results.json` says of the metric."""
    others: dict[str, float | None] = field(default_factory=dict)
    """Further columns: title -> mean over runs."""
    seconds: float | None = None
    """Mean wall time of a run."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was trained with, as far as its method uses it."""
    method: str = ""
    """Name of its method; empty: a rule."""
    always: bool = False
    """Shown however it ranks."""

    @property
    def exact(self) -> Interval | None:
        """Of chance, where it is known without counting."""
        first = self.named[0] if self.role is Role.chance and self.named else None
        return first if first is not None and first.low == first.high else None

    @property
    def items(self) -> int:
        """Test items of a run."""
        return sum(map(len, self.seeds)) // len(self.seeds)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Of the pooled items; of several seeds at least as wide as what the spread between them says."""
        if self.exact:
            return self.exact
        if self.scores:
            estimate = over_items(self.title, self.scores)
        else:
            estimate = over_values(self.title, [each.value for each in self.named])
        low, high = estimate.interval(confidence)
        found = Interval(estimate.value, self.items, low, high)
        pooled = [item for items in self.seeds for item in items]
        if any(item.whole for item in pooled):
            groups, parts, wholes, _ = zip(*pooled, strict=True)
            found = ratio_interval(self.measure.kind, parts, groups, wholes, confidence)
        low, high = min(low, found.low), max(high, found.high)
        if self.measure.kind is Kind.share:
            low, high = max(0.0, low), min(1.0, high)
        return Interval(found.value, found.count, low, high)

    def by_slice(self) -> dict[str, tuple[float, int]]:
        """Value of the slice -> the metric of its items, and how many a run has of them."""
        found: dict[str, list[Counted]] = {}
        for item in (each for items in self.seeds for each in items):
            if item.value is not None and (item.whole or self.exact):
                found.setdefault(item.value, []).append(item)
        return {
            name: (
                self.exact.value if self.exact else sum(each.part for each in own) / sum(each.whole for each in own),
                len(own) // len(self.seeds),
            )
            for name, own in found.items()
        }


@dataclass
class Table:
    """Comparable runs."""

    paper: str
    experiment: str
    scale: str
    runs: list[Run]
    settings: dict[str, Any] = field(default_factory=dict)
    """What sets it apart from other tables of the same experiment and scale."""

    @property
    def which(self) -> tuple[str, str, str]:
        """Paper, experiment, scale."""
        return self.paper, self.experiment, self.scale

    @property
    def name(self) -> str:
        """Its heading."""
        apart = "".join(f", {key}={_shown(value)}" for key, value in self.settings.items())
        return f"{self.paper}: {self.experiment}, scale={self.scale}{apart}"

    @property
    def shows(self) -> Comparison:
        """Its columns."""
        return known(self.paper).comparison


def tables_of(runs: Iterable[Run]) -> list[Table]:
    """Runs that may be compared with each other; runs of rules join all tables on their data.

    Runs without a method, such as those of a run-time study, answer nothing and are left out.
    """
    tables: dict[str, Table] = {}
    for run in sorted((run for run in runs if run.of_method), key=lambda run: run.of_rules):
        which = (run.results.paper, run.results.experiment, run.results.scale)
        fitting = [
            table
            for table in tables.values()
            if table.which == which and all(table.runs[0].keys.get(key) == value for key, value in run.shared.items())
        ]
        if run.of_rules and fitting:
            for table in fitting:
                table.runs.append(run)
        else:
            key = json.dumps([*which, run.shared], sort_keys=True)
            tables.setdefault(key, Table(*which, [])).runs.append(run)
    found = sorted(tables.values(), key=lambda table: (table.paper, table.experiment, table.scale))
    for table in found:
        alike = [other for other in found if other.which == table.which]
        differing = _differing([other.runs[0].shared for other in alike])
        table.settings = {key: table.runs[0].shared[key] for key in differing}
    return found


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that all have, with values that are not the same everywhere."""
    return [
        key
        for key in settings[0]
        if all(key in each for each in settings) and any(each[key] != settings[0][key] for each in settings)
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) or value is None else str(value)


def rows_of(table: Table) -> list[Row]:
    """The lines of a table, in their order.

    Raises:
        UserError: runs that do not have the metric of the paper's first column.
    """
    methods: dict[str, dict[int, Run]] = {}
    rules: dict[int, Run] = {}
    for run in table.runs:
        if run.of_rules:
            rules.setdefault(run.results.seed, run)
        else:  # the same run twice, in two folders, counts once
            methods.setdefault(json.dumps(run.own, sort_keys=True), {}).setdefault(run.results.seed, run)
    own = [next(iter(seeds.values())).own for seeds in methods.values()]
    rows = []
    for seeds in methods.values():
        first = next(iter(seeds.values()))
        twins = [other for other in own if other["method.name"] == first.own["method.name"]]
        apart = ", ".join(f"{key}={_shown(first.own.get(key))}" for key in _differing(twins))
        rows.append(_method_row(list(seeds.values()), table.shows, apart))
    rows += _rule_rows(list(rules.values()), table.shows)
    return sorted(rows, key=lambda row: (BLOCKS.index(row.role), row.place))


def _method_row(runs: Sequence[Run], shows: Comparison, apart: str) -> Row:
    method, (_, main) = runs[0].config["method"], shows.main
    row = _row(method["title"], runs[0].method.role, runs, main.metric, shows)
    row.title = f"{row.title} [{apart}]" if apart else row.title
    row.others = {title: _mean(runs, each.metric) for title, each in list(shows.columns.items())[1:]}
    row.seconds = sum(run.results.wall_seconds for run in runs) / len(runs)
    unread = ("method.", *(f"{group}." for group in runs[0].method.ignores))
    row.settings = {key: value for key, value in runs[0].own.items() if not key.startswith(unread)}
    row.method = str(method["name"])
    return row


def _rule_rows(runs: Sequence[Run], shows: Comparison) -> list[Row]:
    rows = []
    for metric in [name for name in runs[0].results.test if "@" not in name] if runs else ():
        rule = runs[0].paper.rule(metric)
        words = metric.removeprefix(f"{shows.main[1].metric}_").replace("_", " ")
        row = _row(rule.title or f"Shortcut: {words}", rule.role, runs, metric, shows)
        row.always = rule.always
        if rule.role is Role.chance:  # in the order of the file
            row.place = list(runs[0].paper.rules).index(metric)
        rows.append(row)
    return rows


def _row(title: str, role: Role, runs: Sequence[Run], metric: str, shows: Comparison) -> Row:
    named = [run.results.test[metric] for run in runs if metric in run.results.test]
    scores = [found for run in runs if (found := scores_of(run, metric)) is not None]
    if not scores and not named:
        raise UserError(
            f"{runs[0].folder}: no {metric}; name a metric of its runs as the first column under `comparison` of "
            f"{runs[0].results.paper}/{FILE}"
        )
    seeds = [_counted(run, metric, shows.by) for run in runs]
    if any(item.whole for items in seeds for item in items):
        seeds = [[item for item in items if item.whole] for items in seeds]
    measure = shows.main[1].measure
    row = Row(title, role, 0.0, metric, measure, seeds, scores if len(scores) == len(runs) else [], named)
    pooled = [item for items in seeds for item in items]
    whole = sum(item.whole for item in pooled)
    value = sum(item.part for item in pooled) / whole if whole else row.interval().value
    row.place = -value if measure.higher_is_better else value
    return row


def _counted(run: Run, metric: str, by: str) -> list[Counted]:
    return [
        Counted(item.group, *item.scores.get(metric, (0.0, 0.0)), str(item.slices[by]) if by in item.slices else None)
        for item in run.items
        if item.counts()
    ]


def _mean(runs: Sequence[Run], metric: str) -> float | None:
    """Over all items of all runs, else over what `results.json` says; None where a run says nothing."""
    pairs = [item.scores[metric] for run in runs for item in run.items
             if item.counts() and metric in item.scores]  # fmt: skip
    if whole := sum(pair[1] for pair in pairs):
        return sum(pair[0] for pair in pairs) / whole
    named = [run.results.test[metric].value for run in runs if metric in run.results.test]
    return sum(named) / len(named) if len(named) == len(runs) else None


def unequal(rows: Sequence[Row]) -> list[str]:
    """A line for each setting, such as the budget, that is not the same in all rows that use it."""
    lines = []
    for key in dict.fromkeys(key for row in rows for key in row.settings):
        having: dict[str, list[str]] = {}
        for row in rows:
            if key in row.settings:
                having.setdefault(_shown(row.settings[key]), []).append(row.title)
        if len(having) > 1:
            values = "; ".join(f"{value} for {', '.join(titles)}" for value, titles in having.items())
            lines.append(f"Not the same in all rows: {key} is {values}")
    return lines
