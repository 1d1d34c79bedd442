"""Tables of published numbers: what a cell, a row, a column and a table are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from common.errors import UserError
from common.tables.intervals import Kind

FILE = "published.yaml"
WITHIN = "@column"
"""End of a row's metric that counts the items of its column alone."""
Overrides = tuple[str, ...]


class Role(StrEnum):
    """What a row stands for."""

    method = "method"
    """The paper's own, and whatever is not said to be anything else."""
    baseline = "baseline"
    """What it is compared with."""
    control = "control"
    """A method that lacks something, such as the knowledge it would need."""
    rule = "rule"
    """Gets along without what the task is meant to need."""
    chance = "chance"
    """Guesses: blindly, or always the same."""


QUIET = (Role.rule, Role.chance)
"""Rows that stand behind the others."""


@dataclass(frozen=True)
class Measure:
    """How the numbers of a column are read."""

    unit: str = "%"
    """% shows shares of 1 as per cent; any other unit is shown as it is."""
    higher_is_better: bool = True
    kind: Kind = Kind.share

    @classmethod
    def of(cls, unit: str, higher_is_better: bool, kind: Kind | None) -> "Measure":
        """Without a `kind`, per cent are shares and everything else is a quality."""
        return cls(unit, higher_is_better, kind or (Kind.share if unit == "%" else Kind.quality))

    @property
    def factor(self) -> float:
        """From a metric to this unit."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def arrow(self) -> str:
        """Where better is."""
        return "↑" if self.higher_is_better else "↓"

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """A value in this unit, as tables show it; nothing for None."""
        if value is None:
            return ""
        text = f"{value:.1f}" if self.unit == "%" else f"{value:.3g}"
        return f"+{text}" if signed and value > 0 else text

    def best(self, values: Mapping[str, float]) -> str:
        """The name of the best value, of equal ones the first."""
        return (max if self.higher_is_better else min)(values, key=lambda name: values[name])


class Source(StrEnum):
    """How a number was come by."""

    seen = "seen"
    """Read in the paper, its code or its authors' notebooks."""
    recalled = "recalled"
    """From memory of the printed table, then checked against what was seen."""
    unchecked = "unchecked"
    """From memory alone."""
    derived = "derived"
    """Calculated from other numbers."""
    measured = "measured"
    """Read off a figure by the places of its points; not printed."""


@dataclass(frozen=True)
class Published:
    """A number of the paper. `value=None`: published, but not reached, or `text` in place of a number."""

    value: float | None
    source: Source | None = None
    note: str = ""
    text: str = ""


@dataclass(frozen=True)
class Cell:
    """Mean of `metric` over `runs`, less its mean over `minus`; each run is named by its overrides. Without runs it
    shows what was published and no more."""

    row: str
    column: str
    metric: str
    runs: tuple[Overrides, ...]
    minus: tuple[Overrides, ...] = ()
    published: Published | None = None
    """None: ours alone."""


@dataclass(frozen=True)
class Axis:
    """A row or a column as the file has it."""

    overrides: tuple[str, ...] = ()
    metric: str = ""
    over: tuple[Overrides, ...] = ()
    minus: tuple[str, ...] = ()
    against: str = ""
    """Row it is compared with."""
    once: bool = False
    """The same for every seed, so one seed is run."""
    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    scales: tuple[str, ...] | None = None
    """Where it can be run; None: at every scale."""
    tolerance: float | None = None
    """How far from the published value a run of the published size may lie, in the table's unit."""
    unit: str | None = None
    """Of a column; None: the table's."""
    higher_is_better: bool | None = None
    """Of a column; None: the table's."""
    kind: Kind | None = None
    """Of a column; None: what its unit says."""
    role: Role | None = None
    """Of a row; None: that of its method."""
    claim: str = ""
    """Of a row, what is claimed of it beside the row that it is `against`: its verdicts say whether it is better there,
    by the direction of each column and whatever was published."""
    most: float | None = None
    """Of a row with a claim that is against no other: the largest value, in the column's unit, with which it holds."""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper, in the order of its file."""

    paper: str
    name: str
    title: str
    columns: Mapping[str, Axis]
    rows: Mapping[str, Axis]
    where: str = ""
    """Its name in the paper; empty: ours alone."""
    command: str = "train"
    """Module that makes its runs: python -m <paper>.<command>."""
    overrides: tuple[str, ...] = ()
    metric: str = "accuracy"
    axis: str = ""
    """What the columns count, where they are points along an axis; such a table is drawn as a figure too."""
    unit: str = "%"
    """Of columns that do not say their own, as in `Measure`."""
    higher_is_better: bool = True
    """The same."""
    paired: bool = False
    """A seed is the same data and start in every row, so that differences of rows are of pairs."""
    note: str = ""

    def __post_init__(self) -> None:
        """See that every claim can be decided.

        Raises:
            UserError: a row claims something and says neither beside which row nor up to what.
        """
        for name, row in self.rows.items():
            if row.claim and not row.against and row.most is None:
                where = f"{self.paper}/{FILE}: {self.name}, row {name}"
                raise UserError(f"{where}: a claim needs the row that it is `against`, or a value that is its `most`")

    def measure(self, column: str) -> Measure:
        """How the column's numbers are read."""
        axis = self.columns[column]
        higher = self.higher_is_better if axis.higher_is_better is None else axis.higher_is_better
        return Measure.of(self.unit if axis.unit is None else axis.unit, higher, axis.kind)

    @property
    def shared(self) -> Measure | None:
        """The measure of all its columns; None where they differ."""
        found = {self.measure(column) for column in self.columns}
        return found.pop() if len(found) == 1 else None

    def heading(self, column: str) -> str:
        """The column's name, with unit and direction where columns differ in them."""
        measure = self.measure(column)
        return column if self.shared else " ".join(word for word in (column, measure.unit, measure.arrow) if word)

    def role(self, row: str) -> Role:
        """What the row stands for."""
        return self.rows[row].role or Role.method

    def cells(self) -> Iterator[Cell]:
        """Row by row.

        Raises:
            UserError: a cell without metric or overrides, or a value that is no number.
        """
        for row_name, row in self.rows.items():
            for column_name in self.columns:
                if column_name not in row.skip:
                    yield self._cell(row_name, column_name)

    def at(self, scale: str) -> "Table":
        """The table at one scale: rows and columns that cannot be run there keep their published numbers alone."""

        def there(axes: Mapping[str, Axis]) -> dict[str, Axis]:
            return {
                name: axis if axis.scales is None or scale in axis.scales else replace(axis, scales=())
                for name, axis in axes.items()
            }

        return replace(self, rows=there(self.rows), columns=there(self.columns))

    def jobs(self, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> list[tuple[Overrides, bool]]:
        """The runs that fill it, each once, with whether one seed is enough; empty sequences mean all.

        Raises:
            UserError: no such row or column.
        """
        for kind, asked, there in (("rows", rows, self.rows), ("columns", columns, self.columns)):
            if strange := [name for name in asked if name not in there]:
                raise UserError(f"{kind}={strange} of {self.paper} {self.name}: it has {', '.join(there)}")
        found: dict[frozenset[str], tuple[Overrides, bool]] = {}  # whatever the order of a run's overrides
        for cell in self.cells():
            if (not rows or cell.row in rows) and (not columns or cell.column in columns):
                for run in (*cell.runs, *cell.minus):
                    words, once = found.get(frozenset(run), (run, True))
                    found[frozenset(run)] = (words, once and self.rows[cell.row].once)
        return list(found.values())

    def _cell(self, row_name: str, column_name: str) -> Cell:
        row, column = self.rows[row_name], self.columns[column_name]
        where = f"{self.paper}/{FILE}: {self.name}, row {row_name}, column {column_name}"
        metric = row.metric or column.metric or self.metric
        if metric.endswith(WITHIN):
            chosen = (column.metric or self.metric).partition("@")[2]
            metric = f"{metric.removesuffix(WITHIN)}@{chosen}".removesuffix("@")
        if () in (row.scales, column.scales):
            return Cell(row_name, column_name, metric, (), published=_published(row, column_name, where))
        base = merged(self.overrides, column.overrides, row.overrides)
        if not metric or not base:
            raise UserError(f"{where}: no {'overrides' if metric else 'metric'}; give the row or the column some")
        # what a column averages belongs to the column, so the row's own words win
        again = () if row.over else row.overrides
        runs = tuple(merged(base, each, again) for each in row.over or column.over or [()])
        minus = row.minus or column.minus
        published = _published(row, column_name, where)
        less = tuple(merged(run, minus) for run in runs) if minus else ()
        return Cell(row_name, column_name, metric, runs, less, published)


def key_of(override: str) -> str:
    """`key` for `+key=value`."""
    return override.partition("=")[0].lstrip("+~")


def merged(*parts: Sequence[str]) -> Overrides:
    """Overrides in their order; a key that comes again takes its last value."""
    return tuple({key_of(override): override for part in parts for override in part}.values())


def _published(row: Axis, column: str, where: str) -> Published | None:
    if column not in row.values:
        return None
    entry = row.values[column]
    entry = entry if isinstance(entry, dict) else {"value": entry}
    value, source = entry.get("value"), entry.get("source", row.source)
    if "text" in entry:
        return Published(None, note=entry.get("note", row.note), text=str(entry["text"]))
    if value is None:
        return Published(None, note=entry.get("note", row.note))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{where}: {value!r} is not a number; write null where it could not be read")
    if source not in set(Source):
        raise UserError(f"{where}: source={source!r}; use one of {', '.join(Source)}")
    return Published(float(value), Source(source), entry.get("note", row.note))
