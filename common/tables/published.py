"""A paper's published numbers, `<paper>/published.yaml`: which runs fill each cell of its tables.

    tables:
      table1:
        title: Accuracy
        where: Table 1                       # in the paper
        metric: accuracy                     # name in results.json
        columns:
          2 hops: [+experiment=<name>, data.hops=2]
        rows:
          Baseline: {overrides: [method=baseline], source: recalled, values: {2 hops: 99.4}}
          Ours: {overrides: [method=ours], against: Baseline, source: seen, values: {2 hops: 99.5}}

A cell's overrides are those of its table, column and row; scale and seed come from the command line. Row or column may
name another `metric`; `over` lists overrides whose runs are averaged (a row's overrides win over those of its column),
`minus` overrides whose runs are subtracted. A value of null was published, but could not be read; a column that a row's
`values` leave out is ours alone. `skip` lists columns that a row does not have; `scales` lists those at which a row or
a column can be run, elsewhere (and with `[]` everywhere) its published numbers stand alone. A word published in place
of a number is `{text: out of memory}`. A row's metric that ends in `@column` counts only the items of the column's
metric: `best_rule@column` in a column with `accuracy_length_2048` is `best_rule@length_2048`. `tolerance` is for runs
of the published size; `axis` says what the columns count.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from importlib.resources import files
from typing import Any, TypeVar

import yaml

from common.errors import UserError

FILE = "published.yaml"
WITHIN = "@column"
"""End of a row's metric that counts the items of its column alone."""
T = TypeVar("T")
Overrides = tuple[str, ...]


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
    """% shows shares of 1 as per cent; any other unit is shown as it is."""
    higher_is_better: bool = True
    note: str = ""

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
            metric = f"{metric.removesuffix(WITHIN)}@{slice_of(column.metric or self.metric)}".removesuffix("@")
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


@dataclass(frozen=True)
class Paper:
    """Everything `published.yaml` says."""

    name: str
    tables: Mapping[str, Table]
    not_reached: Mapping[str, str]
    """What was published and has no cell here, with the reason."""

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            UserError: there is none.
        """
        if name not in self.tables:
            raise UserError(f"table={name}: {self.name} has {', '.join(self.tables)}")
        return self.tables[name]


def read(paper: str) -> Paper:
    """The published numbers of a paper's package.

    Raises:
        UserError: no such paper or file, or a file that does not have the form above.
    """
    try:
        text = (files(paper) / FILE).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f"paper={paper}: there is no {paper}/{FILE}") from error
    return parse(paper, text)


def parse(paper: str, text: str) -> Paper:
    """The content of a `published.yaml`; errors as in `read`."""
    where = f"{paper}/{FILE}"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML ({error}); mend it") from error
    if not isinstance(content, dict) or not isinstance(content.get("tables"), dict):
        raise UserError(f"{where}: a mapping with the key 'tables' is needed")
    tables = {str(name): _table(paper, str(name), value, where) for name, value in content["tables"].items()}
    return Paper(paper, tables, content.get("not_reached") or {})


def slice_of(metric: str) -> str:
    """Which items a metric counts: `length_2048` for `accuracy_length_2048` and `exact@length_2048`; empty: all."""
    name, _, chosen = metric.partition("@")
    return chosen or (name.removeprefix("accuracy_") if name.startswith("accuracy_") else "")


def key_of(override: str) -> str:
    """`key` for `+key=value`."""
    return override.partition("=")[0].lstrip("+~")


def merged(*parts: Sequence[str]) -> Overrides:
    """Overrides in their order; a key that comes again takes its last value."""
    return tuple({key_of(override): override for part in parts for override in part}.values())


def _table(paper: str, name: str, value: Any, where: str) -> Table:
    where = f"{where}: {name}"
    axes = {}
    for axis in ("columns", "rows"):
        entries = value.get(axis) if isinstance(value, dict) else None
        if not isinstance(entries, dict) or not entries:
            raise UserError(f"{where}: a table needs a mapping of {axis}")
        axes[axis] = {str(key): _axis(entry, f"{where}, {axis} {key}") for key, entry in entries.items()}
    rest = {key: entry for key, entry in value.items() if key not in axes} | {"overrides": _words(value, where)}
    table = _made(Table, {"paper": paper, "name": name, **axes, **rest}, where)
    for key, row in table.rows.items():
        for names, there in ((row.values, table.columns), (row.skip, table.columns), (_some(row.against), table.rows)):
            if strange := [each for each in names if each not in there]:
                raise UserError(f"{where}, row {key}: {strange[0]} is none of {', '.join(there)}")
    return table


def _axis(entry: Any, where: str) -> Axis:
    if isinstance(entry, list):
        entry = {"overrides": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: give a list of overrides, or a mapping with the key 'overrides'")
    over = tuple(_words({"overrides": each}, where) for each in entry.get("over", []))
    lists: dict[str, Any] = {
        key: _words({"overrides": entry[key]}, where) for key in ("minus", "skip", "scales") if key in entry
    }
    if "values" in entry:
        lists["values"] = {str(key): value for key, value in entry["values"].items()}
    return _made(Axis, {**entry, "overrides": _words(entry, where), "over": over, **lists}, where)


def _words(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = entry.get("overrides") or []
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise UserError(f"{where}: {found!r} is not a list of words such as [method=ft_icr]")
    return tuple(found)


def _made(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if strange := [key for key in values if key not in known]:
        raise UserError(f"{where}: unknown key {strange[0]}; known are {', '.join(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error


def _some(name: str) -> list[str]:
    return [name] if name else []


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
