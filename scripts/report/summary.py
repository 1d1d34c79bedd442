"""What stands around the tables: the page's head, the shortcut audit, other runs, and what is missing."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from common.run.folder import read_environment
from common.run.progress import duration
from common.tables.cells import Role
from common.tables.comparison import rows_of, tables_of
from common.tables.damaged import reading
from common.tables.join import Joined, Verdict
from common.tables.published import Paper
from common.tables.runs import Run
from scripts.report.page import Block, Cell, DataTable, Head, Line, table_of
from scripts.report.tables import anchor_of, printing
from scripts.tables import comparison
from scripts.tables.published_tables import command_of

SHOWN = 10
"""Digits of a revision."""


def facts(runs: Sequence[Run], unfinished: int) -> list[tuple[str, list[str]]]:
    """Name and lines of what stands below the title."""
    made = Counter(_hardware(run) for run in runs)
    code = Counter(_revision(run) for run in runs)
    seconds = sum(run.results.wall_seconds for run in runs)
    begun = sorted(filter(None, (_started(run) for run in runs)))
    return [
        ("Written", [f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]),
        ("Runs", [f"{len(runs)} finished" + (f", {unfinished} not finished" if unfinished else "")]),
        ("Begun", [" to ".join(dict.fromkeys((begun[0], begun[-1])))] if begun else ["–"]),
        ("Wall time in all", [duration(seconds)]),
        ("Scale", sorted({run.results.scale for run in runs}) or ["–"]),
        ("Hardware", _counted(made)),
        ("Revision", _counted(code)),
    ]


def _counted(found: Counter[str]) -> list[str]:
    if len(found) < 2:
        return list(found) or ["–"]
    return [f"{text}: {count} {'run' if count == 1 else 'runs'}" for text, count in found.most_common()]


def _hardware(run: Run) -> str:
    there = run.results.hardware
    cuda = list(there.get("cuda") or []) if there.get("device") != "cpu" else []
    cards = f", {len(cuda)} × {cuda[0]}" if cuda else ""
    memory = f", {there['memory_bytes'] / 1e9:.0f} GB" if there.get("memory_bytes") else ""
    cores = f", {there['cores']} {'core' if there['cores'] == 1 else 'cores'}" if there.get("cores") else ""
    return f"{there.get('cpu') or 'not recorded'}{cores}{memory}{cards}"


def _revision(run: Run) -> str:
    name = run.results.revision[:SHOWN] or "not recorded"
    return f"{name} with changes" if run.results.dirty else name


def _started(run: Run) -> str:
    with reading(run.folder):
        return str(read_environment(run.folder).get("started", ""))[:10]


def audit(runs: Sequence[Run]) -> DataTable | None:
    """How far rules without reasoning get: a line for each data set, a column for each rule; None without runs."""
    found = tables_of([run for run in runs if run.of_rules])
    if not found:
        return None
    rules: dict[str, str] = {}  # metric -> title
    for table in found:
        paper, prefix = table.runs[0].paper, f"{table.shows.main[1].metric}_"
        for metric in [name for name in table.runs[0].results.test if "@" not in name]:
            rules.setdefault(metric, paper.rule(metric).title or metric.removeprefix(prefix).replace("_", " "))
    head = [Head("data", number=False), Head("scale", number=False), Head("runs"), Head("best rule", number=False)]
    head += [Head(title) for title in rules.values()]
    lines = []
    for table in sorted(found, key=lambda each: _data(each.experiment, each.settings)):
        paper, measure = table.runs[0].paper, table.shows.main[1].measure
        named = {metric: [r.results.test[metric] for r in table.runs if metric in r.results.test] for metric in rules}
        means = {metric: sum(each.value for each in own) / len(own) for metric, own in named.items() if own}
        own = {metric: value for metric, value in means.items() if paper.rule(metric).role is Role.rule}
        best = measure.best(own) if own else ""
        cells = [Cell(_data(table.experiment, table.settings)), Cell(table.scale), Cell(str(len(table.runs)))]
        cells.append(Cell(rules.get(best, "")))
        for metric, intervals in named.items():
            value = means.get(metric)
            low, high = (intervals[0].low, intervals[0].high) if len(intervals) == 1 else (0.0, 0.0)
            small = f"{measure.text(measure.factor * low)}–{measure.text(measure.factor * high)}" if low < high else ""
            text = "–" if value is None else measure.text(measure.factor * value)
            cells.append(Cell(text, small, kind="best" if metric == best else "", value=value))
        lines.append(Line(cells))
    return DataTable(head, lines, "Shortcut audit: accuracy in per cent of rules without reasoning")


def _data(experiment: str, settings: dict[str, object]) -> str:
    words = [f"{key.removeprefix('data.')}={value}" for key, value in settings.items() if value is not None]
    return ", ".join([experiment, *words])


def others(runs: Sequence[Run], root: Path) -> list[Block]:
    """Runs that no published table has, compared by experiment."""
    blocks = []
    for index, table in enumerate(tables_of(runs)):
        grid = comparison.grid_of(table, rows_of(table), [])
        words = [f"paper={table.paper}", f"experiment={table.experiment}"]
        command = ("table", printing(words, root))
        blocks.append(Block(table.name, f"other-{index + 1}", table=table_of(grid, table.name), commands=[command]))
    return blocks


def missing(tables: Sequence[Joined], root: Path) -> DataTable | None:
    """A line for each table that lacks runs, with the command that makes them; None: nothing is missing."""
    lines = []
    for joined in tables:
        if joined.missing:
            empty = sum(cell.verdict is Verdict.missing for cell in joined.cells)
            cells = [Cell(joined.table.title, link=anchor_of(joined)), Cell(joined.scale), Cell(str(empty))]
            cells += [Cell(str(len(joined.missing))), Cell(command_of(joined, root), code=True)]
            lines.append(Line(cells))
    head = [Head("table", number=False), Head("scale", number=False), Head("empty cells"), Head("runs lacking")]
    return DataTable([*head, Head("command", number=False)], lines, "What is missing") if lines else None


def not_reached(papers: Sequence[Paper]) -> DataTable | None:
    """What was published and has no cell, with the reason; None: everything has one."""
    lines = [
        Line([Cell(paper.name), Cell(what), Cell(why)]) for paper in papers for what, why in paper.not_reached.items()
    ]
    head = [Head("paper", number=False), Head("published", number=False), Head("why it is not here", number=False)]
    return DataTable(head, lines, "Published, and not reproduced") if lines else None
