"""Run folders -> tables of comparable runs -> their rows."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run import folder as folders
from common.run import results
from common.run.results import Interval
from common.run.schema import schema_of
from common.tables.estimates import Scores, over_items
from common.tables.intervals import accuracy_interval

MAY_DIFFER = ("method.", "inner.", "outer.", "evaluation.")
"""What runs of one table may differ in besides the seed; rows that differ in more than their method say in what."""
SHORTCUTS = "shortcuts"
NO_INNER = "in_context"
"""The learner without an inner loop."""
CONFIDENCE, STRICT = 0.95, 0.99
EXPLAINED = {"chance": "Chance", "majority": "Majority label"}


@dataclass
class Run:
    """A finished run."""

    folder: Path
    results: results.Results
    config: dict[str, Any]
    keys: dict[str, Any]
    """What its hash covers, by dotted key, but for the seed."""

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all runs of a table have in common; shortcut rules know nothing but data."""
        if self.learner == SHORTCUTS:
            return {key: value for key, value in self.keys.items() if key.startswith("data.")}
        return {key: value for key, value in self.keys.items() if not key.startswith(MAY_DIFFER)}

    @property
    def own(self) -> dict[str, Any]:
        """The settings that tell the rows of a table apart."""
        if self.learner == SHORTCUTS:
            return {}
        return {key: value for key, value in self.keys.items() if key.startswith(MAY_DIFFER)}

    @property
    def learner(self) -> str:
        """What answered: `method.learner`."""
        return str(self.config.get("method", {}).get("learner", ""))

    @property
    def words(self) -> dict[str, str]:
        """Label in the data -> answer word."""
        return dict(self.config.get("data", {}).get("labels") or {})


@dataclass
class Row:
    """One line of a table."""

    title: str
    order: tuple[int, float]
    correct: list[float]
    """1 for right, 0 for wrong, a share for chance."""
    groups: list[str]
    classes: list[str]
    """The expected answer, or the kind of question where there are kinds, item by item."""
    seeds: int
    recall: float | None = None
    """Share of answers that recite exactly the relevant facts."""
    seconds: float | None = None
    """Mean wall time of a run."""
    exact: Interval | None = None
    """Chance: known without counting."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the row was trained with, as far as its method uses it."""
    method: str = ""
    """Name of its method; empty: a rule."""

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Of the pooled items; of several seeds at least as wide as what the spread between them says."""
        if self.exact:
            return self.exact
        pooled = accuracy_interval(self.correct, self.groups, confidence)
        low, high = over_items(self.title, self._by_seed()).interval(confidence)
        return replace(pooled, low=max(0.0, min(low, pooled.low)), high=min(1.0, max(high, pooled.high)))

    def _by_seed(self) -> list[Scores]:
        size = len(self.correct) // self.seeds
        items = [(group, right, 1.0) for group, right in zip(self.groups, self.correct, strict=True)]
        return [Scores.of(items[first : first + size]) for first in range(0, len(items), size)]

    def per_class(self) -> dict[str, float]:
        """Share of right answers by expected answer, or kind of question."""
        counts: dict[str, list[float]] = defaultdict(list)
        for right, expected in zip(self.correct, self.classes, strict=True):
            counts[expected].append(right)
        return {name: self.exact.value if self.exact else sum(c) / len(c) for name, c in counts.items()}


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


def read_runs(root: Path, paper: str | None, experiment: str | None) -> tuple[list[Run], list[str]]:
    """Finished runs below `root`, and a line for each that is not finished.

    Raises:
        UserError: there is no such folder, or a result in it is not one of ours.
    """
    if not root.is_dir():
        raise UserError(f"root={root}: no such folder; give the folder of the runs (loop.root of the training)")
    finished, unfinished = [], []
    for path in sorted(root.rglob(folders.CONFIG)):
        folder = path.parent
        if not (folder / folders.ENVIRONMENT).is_file():
            continue  # somebody's configuration, not a run
        if results.finished_hash(folder) is None:
            if paper in (None, *folder.parts) and experiment in (None, folders.read_config(folder).get("experiment")):
                unfinished.append(f"{folder}: {command_of(folder)}")
            continue
        found = results.read(folder)
        config = folders.read_config(folder)
        if paper in (None, found.paper) and experiment in (None, found.experiment):
            keys = {
                key: value
                for key, value in results.hashed_keys(config, schema_of(found.paper, config)).items()
                if key != "seed"
            }
            finished.append(Run(folder, found, config, keys))
    return finished, unfinished


def command_of(folder: Path) -> str:
    """The command that began the run in `folder`, as a user would type it."""
    words = shlex.split(json.loads((folder / folders.ENVIRONMENT).read_text()).get("command", ""))
    if len(words) > 1 and words[1].endswith(".py"):
        script = Path(words[1])
        words[1:2] = ["-m", f"{script.parent.name}.{script.stem}"]
    return shlex.join(words)


def tables_of(runs: Iterable[Run]) -> list[Table]:
    """Runs that may be compared with each other; every shortcut run joins all tables on its data.

    Runs without a method, such as those of the run-time study, answer no questions and are left out.
    """
    tables: dict[str, Table] = {}
    runs = sorted((run for run in runs if run.learner), key=lambda run: run.learner == SHORTCUTS)
    for run in runs:
        which = (run.results.paper, run.results.experiment, run.results.scale)
        fitting = [
            table
            for table in tables.values()
            if table.which == which and all(table.runs[0].keys.get(key) == value for key, value in run.shared.items())
        ]
        if run.learner == SHORTCUTS and fitting:
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
    """The lines of a table, in their order."""
    methods: dict[str, dict[int, Run]] = {}
    rules: dict[int, Run] = {}
    for run in table.runs:
        if run.learner == SHORTCUTS:
            rules.setdefault(run.results.seed, run)
        else:  # the same run twice, in two folders, counts once
            methods.setdefault(json.dumps(run.own, sort_keys=True), {}).setdefault(run.results.seed, run)
    own = [next(iter(seeds.values())).own for seeds in methods.values()]
    rows = []
    for seeds in methods.values():
        first = next(iter(seeds.values()))
        twins = [other for other in own if other["method.name"] == first.own["method.name"]]
        apart = ", ".join(f"{key}={_shown(first.own.get(key))}" for key in _differing(twins))
        rows.append(_method_row(list(seeds.values()), apart))
    rows += _rule_rows(list(rules.values()))
    return sorted(rows, key=lambda row: row.order)


def _method_row(runs: Sequence[Run], apart: str) -> Row:
    method = runs[0].config["method"]
    items = [item for run in runs for item in items_of(run)]
    whole = method.get("knowledge", "given") == "given" and method.get("question", True)
    block = {runs[0].results.paper: 0, "in_context": 1}.get(runs[0].learner, 2) if whole else 2
    recalls = [float(item["recall"]["exact"]) for item in items if item.get("recall") is not None]
    correct = [float(item["correct"]) for item in items]
    return Row(
        title=f"{method['title']} [{apart}]" if apart else method["title"],
        order=(block, -sum(correct) / len(correct)),
        correct=correct,
        groups=[group_of(item) for item in items],
        classes=[str(item.get("kind", item["answer"])) for item in items],
        seeds=len(runs),
        recall=sum(recalls) / len(recalls) if recalls else None,
        seconds=sum(run.results.wall_seconds for run in runs) / len(runs),
        settings={
            key: value
            for key, value in runs[0].own.items()
            if not key.startswith("method.") and (runs[0].learner != NO_INNER or not key.startswith("inner."))
        },
        method=str(method["name"]),
    )


def _rule_rows(runs: Sequence[Run]) -> list[Row]:
    rows = []
    read = [(run, item) for run in runs for item in items_of(run)]
    for metric, known in runs[0].results.test.items() if runs else ():
        rule = metric.removeprefix("accuracy_")
        if rule not in read[0][1]:
            continue  # of a part of the items
        correct = [right(item, rule) for _, item in read]
        block = {"majority": 4, "chance": 5}.get(rule, 3)
        rows.append(
            Row(
                title=EXPLAINED.get(rule, f"Shortcut: {rule.replace('_', ' ')}"),
                order=(block, -sum(correct) / len(correct)),
                correct=correct,
                groups=[group_of(item) for _, item in read],
                classes=[str(item.get("kind", run.words.get(item["answer"], item["answer"]))) for run, item in read],
                seeds=len(runs),
                exact=known if rule == "chance" else None,
            )
        )
    return rows


def items_of(run: Run) -> list[dict[str, Any]]:
    """The items of the test split as the data set has it; not those of further passes at other lengths or positions."""
    return [item for item in results.read_predictions(run.folder) if item.get("further") is None]


def group_of(item: Mapping[str, Any]) -> str:
    """What the item hangs on: its context or its theory; items of one group are not independent."""
    return str(item["context"] if "context" in item else item["theory"])


def right(item: Mapping[str, Any], rule: str) -> float:
    """Whether a rule is right about an item, whose entry is what the rule says, or its score from 0 to 1."""
    said = item[rule]
    return float(said == item["answer"] if isinstance(said, str) else said)


def verdict(rows: Sequence[Row], paper: str = "reckoning") -> str:
    """One sentence: does the paper's method beat what needs no reasoning?"""
    name = paper.upper()
    ours = [row for row in rows if row.order[0] == 0]
    rules = [row for row in rows if row.order[0] >= 3]
    if not ours:
        return f"No finished run of {name} here."
    row = next((row for row in ours if row.method == paper), ours[0])
    got = row.interval(STRICT)
    text = f"{row.title}: accuracy {percent(got.value)} %, 99 % interval {percent(got.low)} to {percent(got.high)}"
    if not rules:
        return f"{text}; no finished run of method=shortcuts to compare it with."
    best = max(rules, key=lambda rule: rule.interval().value)
    rule = best.title[0].lower() + best.title[1:]
    if got.low > best.interval().value:
        relation = f"{name} lies above it, beyond the interval"
    elif got.high < best.interval().value:
        relation = f"{name} lies below it, beyond the interval"
    else:
        relation = f"it lies inside the interval, so {name} is not shown to beat it"
    most = percent(best.interval().value)
    return f"{text}; the best of {len(rules)} rules without reasoning ({rule}) gets {most} %: {relation}."


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


def repeated(runs: Iterable[Run]) -> list[str]:
    """A line for each run folder that holds what another one holds: the same settings, the same seed."""
    first: dict[str, Run] = {}
    lines = []
    for run in runs:
        kept = first.setdefault(run.results.config_hash, run)
        if kept is not run:
            lines.append(f"{run.folder}: the same run as {kept.folder}")
    return lines


def percent(share: float | None) -> str:
    """12.3 for 0.123, nothing for None."""
    return "" if share is None else f"{100 * share:.1f}"
