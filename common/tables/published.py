"""A paper's published numbers, `<paper>/published.yaml`: which runs fill each cell of its tables.

    title: OURS                              # the method in words
    steps: rounds                            # what the loop counts; outer steps where nothing is said
    methods:                                 # what methods stand for; others are methods of the paper's own kind
      ours: {role: method}
      baseline: {role: baseline, ignores: [inner]}
      shortcuts: {role: rule}
    rules:                                   # metrics of runs of rules that are not just another rule
      accuracy_chance: {role: chance, title: Chance}
    comparison:                              # columns of `scripts.tables experiment=`; the first orders the rows
      items: questions
      by: {slice: answer, first: ["yes", "no"]}
      worth: accuracy                        # the column that the report shows against cost; else the first
      columns:
        accuracy: {metric: accuracy}
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
          Best rule: {overrides: [method=shortcuts], metric: accuracy_*, once: true}

A cell's overrides are those of its table, column and row; scale and seed come from the command line. Row or column may
name another `metric`; `over` lists overrides whose runs are averaged (a row's overrides win over those of its column),
`minus` overrides whose runs are subtracted. A value of null was published, but could not be read; a column that a row's
`values` leave out is ours alone. `skip` lists columns that a row does not have; `scales` lists those at which a row or
a column can be run, elsewhere (and with `[]` everywhere) its published numbers stand alone. A word published in place
of a number is `{text: out of memory}`. `tolerance` is for runs of the published size; `axis` says what the columns
count.

A metric is any that items have or results.json names; `accuracy@length_2048` counts the items whose slice `length` is
2048. `accuracy_*` is the best of a run's metrics of that form, without those that `rules` calls chance. A row's metric
that ends in `@column` counts only the items of the column's metric: `accuracy_*@column` in a column with
`accuracy@length_2048` is `accuracy_*@length_2048`.

A column's `unit`, `higher_is_better` and `kind` (share, count, quality) are those of its table unless it says its own;
without a `kind`, per cent are shares and all else qualities. A row's `role` (method, baseline, control, rule, chance)
is that of its method in `methods` unless it says its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeVar

from common import yamltext
from common.errors import UserError
from common.tables.cells import FILE, Axis, Measure, Role, Table, key_of, merged
from common.tables.intervals import Kind

T = TypeVar("T")
OF_COLUMNS, OF_ROWS = ("unit", "higher_is_better", "kind"), ("role", "claim", "most")
"""Keys that say nothing about the other axis."""


@dataclass(frozen=True)
class Method:
    """What a method stands for where runs are compared."""

    role: Role = Role.method
    ignores: tuple[str, ...] = ()
    """Groups of settings that it does not read."""


@dataclass(frozen=True)
class Rule:
    """What a metric of a run of rules stands for."""

    role: Role = Role.rule
    title: str = ""
    always: bool = False
    """Shown however it ranks."""


@dataclass(frozen=True)
class Shown:
    """A column of a comparison."""

    metric: str
    unit: str = "%"
    higher_is_better: bool = True
    kind: Kind | None = None

    @property
    def measure(self) -> Measure:
        """How its numbers are read."""
        return Measure.of(self.unit, self.higher_is_better, self.kind)


@dataclass(frozen=True)
class Comparison:
    """What a comparison of arbitrary runs shows."""

    columns: Mapping[str, Shown] = field(default_factory=lambda: {"accuracy": Shown("accuracy")})
    """Title -> what it shows. The first has intervals and orders the rows; others stand where a row has them."""
    items: str = "items"
    """What the test items are called."""
    by: str = ""
    """Slice with a column for each of its values."""
    first: tuple[str, ...] = ()
    """Its values that come before the others."""
    worth: str = ""
    """Title of the column that is shown against what runs cost; empty: the first."""

    @property
    def against_cost(self) -> tuple[str, Shown]:
        """Title and content of the column that is shown against cost."""
        return (self.worth, self.columns[self.worth]) if self.worth else self.main

    @property
    def main(self) -> tuple[str, Shown]:
        """Title and content of the first column."""
        return next(iter(self.columns.items()))


@dataclass(frozen=True)
class Paper:
    """Everything `published.yaml` says."""

    name: str
    tables: Mapping[str, Table]
    not_reached: Mapping[str, str]
    """What was published and has no cell here, with the reason."""
    title: str = ""
    """Of its method, in words."""
    methods: Mapping[str, Method] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    comparison: Comparison = Comparison()
    steps: str = "outer steps"
    """What its training loop counts, as an axis says it."""
    told: str = ""
    """Property of its configuration that each row of its tables tells of its runs; empty: none."""

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            UserError: there is none.
        """
        if name not in self.tables:
            raise UserError(f"table={name}: {self.name} has {', '.join(self.tables)}")
        return self.tables[name]

    def method(self, name: str) -> Method:
        """What a method stands for; one that the file does not name is a method of the paper's own kind."""
        return self.methods.get(name, Method())

    def rule(self, metric: str) -> Rule:
        """What a metric of a run of rules stands for."""
        return self.rules.get(metric, Rule())

    def measure(self, metric: str) -> Measure:
        """How a metric is read: as its column of the comparison, else as a plain number."""
        found = [shown.measure for shown in self.comparison.columns.values() if shown.metric == metric]
        return found[0] if found else Measure("", kind=Kind.quality)

    def first(self, role: Role) -> str:
        """The first method with that role; empty without any."""
        return next((name for name, method in self.methods.items() if method.role is role), "")


@lru_cache
def read(paper: str) -> Paper:
    """The published numbers of a paper's package, read once.

    Raises:
        UserError: no such paper or file, or a file that does not have the form above.
    """
    try:
        text = (files(paper) / FILE).read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f"paper={paper}: there is no {paper}/{FILE}") from error
    return parse(paper, text)


def known(paper: str) -> Paper:
    """What is known of the paper of a run: its file, or nothing where it has none.

    Raises:
        UserError: the file does not have the form above.
    """
    try:
        return read(paper) if (files(paper) / FILE).is_file() else Paper(paper, {}, {})
    except ModuleNotFoundError:
        return Paper(paper, {}, {})


def parse(paper: str, text: str) -> Paper:
    """The content of a `published.yaml`; errors as in `read`."""
    where = f"{paper}/{FILE}"
    content = yamltext.load(text, where)
    if not isinstance(content, dict) or not isinstance(content.get("tables"), dict):
        raise UserError(f"{where}: a mapping with the key 'tables' is needed")
    methods = {
        str(name): _made(Method, {**entry, "ignores": tuple(entry.get("ignores", ()))}, f"{where}: methods, {name}")
        for name, entry in (content.get("methods") or {}).items()
    }
    ruled = (content.get("rules") or {}).items()
    rules = {str(name): _made(Rule, entry, f"{where}: rules, {name}") for name, entry in ruled}
    paired = {"paired": True} if content.get("paired") else {}
    tables = {
        str(name): _table(paper, str(name), value, where, methods, paired) for name, value in content["tables"].items()
    }
    title = content.get("title", paper.upper())
    shown = _comparison(content["comparison"], f"{where}: comparison") if "comparison" in content else Comparison()
    steps, told = str(content.get("steps", Paper.steps)), str(content.get("told", ""))
    return Paper(paper, tables, content.get("not_reached") or {}, title, methods, rules, shown, steps, told)


def _comparison(entry: Mapping[str, Any], where: str) -> Comparison:
    columns = {
        str(title): _made(Shown, {"metric": str(title), **given}, f"{where}, {title}")
        for title, given in (entry.get("columns") or {}).items()
    }
    if not columns:
        raise UserError(f"{where}: a mapping of columns is needed, such as accuracy: {{metric: accuracy}}")
    if (worth := entry.get("worth", "")) and worth not in columns:
        raise UserError(f"{where}: worth={worth} is none of its columns {', '.join(columns)}")
    by = entry.get("by") or {}
    values = {"columns": columns, "by": by.get("slice", ""), "first": tuple(map(str, by.get("first", ())))}
    return _made(Comparison, {**entry, **values}, where)


def _table(
    paper: str, name: str, value: Any, where: str, methods: Mapping[str, Method], usual: Mapping[str, Any]
) -> Table:
    where = f"{where}: {name}"
    axes = {}
    for axis in ("columns", "rows"):
        entries = value.get(axis) if isinstance(value, dict) else None
        if not isinstance(entries, dict) or not entries:
            raise UserError(f"{where}: a table needs a mapping of {axis}")
        foreign = OF_ROWS if axis == "columns" else OF_COLUMNS
        axes[axis] = {str(key): _axis(entry, f"{where}, {axis} {key}", foreign) for key, entry in entries.items()}
    rest = {key: entry for key, entry in value.items() if key not in axes} | {"overrides": _words(value, where)}
    table = _made(Table, {**usual, "paper": paper, "name": name, **axes, **rest}, where)
    roles = {key: row.role or _role(table, row, methods) for key, row in table.rows.items()}
    table = replace(table, rows={key: replace(row, role=roles[key]) for key, row in table.rows.items()})
    for key, row in table.rows.items():
        for names, there in ((row.values, table.columns), (row.skip, table.columns), (_some(row.against), table.rows)):
            if strange := [each for each in names if each not in there]:
                raise UserError(f"{where}, row {key}: {strange[0]} is none of {', '.join(there)}")
    return table


def _role(table: Table, row: Axis, methods: Mapping[str, Method]) -> Role:
    """That of the method which the row's overrides choose."""
    words = [word for word in merged(table.overrides, row.overrides) if key_of(word) == "method"]
    return methods.get(words[0].partition("=")[2], Method()).role if words else Role.method


def _axis(entry: Any, where: str, foreign: Sequence[str]) -> Axis:
    if isinstance(entry, list):
        entry = {"overrides": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: give a list of overrides, or a mapping with the key 'overrides'")
    if strange := [key for key in foreign if key in entry]:
        raise UserError(f"{where}: {strange[0]} belongs to {'rows' if foreign is OF_ROWS else 'columns'}")
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
        return kind(**_chosen(values, where))
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error


def _chosen(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values, those with a few choices as one of them."""
    found = dict(values)
    for key, choices in (("role", Role), ("kind", Kind)):
        if key in found:
            words = {choice.value: choice for choice in choices}
            if found[key] not in words:
                raise UserError(f"{where}: {key}={found[key]!r}; use one of {', '.join(words)}")
            found[key] = words[found[key]]
    return found


def _some(name: str) -> list[str]:
    return [name] if name else []
