"""The published tables of all papers, filled and as grids."""

import importlib
import shlex
from collections.abc import Sequence, Sized
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from importlib.resources import files
from pathlib import Path

from common.errors import UserError
from common.fields import counts, fields_along
from common.run.progress import duration
from common.tables import published, sweep
from common.tables.cells import FILE, Overrides, Source, Table, key_of, merged
from common.tables.damaged import without_damaged
from common.tables.join import Filled, Joined, Verdict, join
from common.tables.kept import Which, digest_of, kept
from common.tables.published import Paper
from common.tables.runs import Run, read_runs
from scripts.tables.grids import Grid

MARKS = {
    Source.recalled: ("r", "recalled, then checked"),
    Source.unchecked: ("u", "recalled, unchecked"),
    Source.derived: ("d", "derived"),
    Source.measured: ("m", "measured in a figure"),
}
"""What stands behind a published number whose source was not seen, and its meaning."""
PAPERS = ("reckoning", "perk", "fal", "slowfast_vgen")
SCALES = ("paper", "gpu", "cpu")
CHOSEN = ("experiment", "scale", "seed")
"""Keys of a run that a table chooses by itself."""
NOT_REACHED = "not reached"
MEASURED = ("s", "GB")
"""Units of numbers whose runs want the machine to themselves."""
USUAL = Path("runs")
"""Where training puts its runs."""
_composed: dict[Which, str] = {}
"""Digests of settings: tables share some, and composing takes a while."""


def every_paper() -> list[str]:
    """The papers of this repository that say what they published."""
    found = []
    for paper in PAPERS:
        try:
            if (files(paper) / FILE).is_file():
                found.append(paper)
        except ModuleNotFoundError:
            continue
    return found


def overrides_of(words: Sequence[str], papers: Sequence[str], keys: Sequence[str]) -> Overrides:
    """Overrides for every cell of the tables of `papers`, from words that have none of the command's own `keys`.

    Raises:
        UserError: no paper has such a key, or it is none that tells runs apart.
    """
    for word in words:
        key = key_of(word)
        schemas = [schema for paper in papers if _knows(schema := _schema(paper, "train"), key)]
        if key in CHOSEN or not any(counts(key, schema) for schema in schemas):
            why = f"{key} tells no cells apart" if schemas else f"runs of {' and '.join(papers)} have no key {key}"
            raise UserError(
                f"{word}: write {', '.join(f'{each}=<...>' for each in keys)}, or an override of every cell such "
                f"as inner.eps=1e-8 ({why}); --help shows examples"
            )
    return merged(words)


def _schema(paper: str, command: str) -> type:
    found: type = importlib.import_module(f"{paper}.config").SCHEMAS[command]
    return found


def _knows(schema: type, key: str) -> bool:
    return [own for own, _ in fields_along(key, schema)][-1:] == [key]


def joined_tables(
    root: Path, papers: Sequence[str], name: str | None, scale: str | None, words: Overrides = ()
) -> list[Joined]:
    """Published tables with the runs below `root`: the one that is asked for, else each with a run, once a scale.

    `words` are overrides of every cell, whose own ones win over them.

    Raises:
        UserError: no such paper or table.
    """
    wanted = tables_named([published.read(paper) for paper in papers], name)
    runs = read_runs(root, None, None)[0] if root.is_dir() else []
    with kept_settings(root):
        return without_damaged(runs, lambda kept: _joined(kept, papers, wanted, name, scale, words))


def kept_settings(root: Path) -> AbstractContextManager[None]:
    """Within this block only those settings are composed that were not before for runs below `root`."""
    return kept(root, PAPERS, _composed)


def _joined(
    runs: Sequence[Run],
    papers: Sequence[str],
    wanted: Sequence[Table],
    name: str | None,
    scale: str | None,
    words: Overrides,
) -> list[Joined]:
    found = []
    for paper in papers:
        own = [run for run in runs if run.results.paper == paper]
        for table in (each for each in wanted if each.paper == paper):
            for each in [scale] if scale else _scales(own) or SCALES[-1:]:
                there = [run for run in own if run.results.scale == each] if name else _fitting(table, own, each)
                if name or there:
                    joined = fill(table, there, each, words)
                    if name or joined.runs:
                        found.append(joined)
    return found


def tables_named(papers: Sequence[Paper], name: str | None) -> list[Table]:
    """All tables of the papers, or those of that name.

    Raises:
        UserError: no paper has it.
    """
    found = [table for paper in papers for table in paper.tables.values() if name in (None, table.name)]
    if name is not None and not found:
        raise UserError(f"table={name}: " + "; ".join(f"{each.name} has {', '.join(each.tables)}" for each in papers))
    return found


def all_tables(runs: Sequence[Run], papers: Sequence[Paper], words: Overrides = ()) -> list[Joined]:
    """Every published table, once for each scale that has runs of it; tables without a run are there as well, empty.

    `words` are as in `joined_tables`.
    """
    found = []
    for paper in papers:
        own = [run for run in runs if run.results.paper == paper.name]
        for table in paper.tables.values():
            there = [
                fill(table, fitting, scale, words) for scale in _scales(own) if (fitting := _fitting(table, own, scale))
            ]
            with_runs = [joined for joined in there if joined.runs]
            found += with_runs or [_empty(table, (_scales(own) or SCALES)[-1])]
    return found


def _empty(table: Table, scale: str) -> Joined:
    return join(table.at(scale), [], lambda words: "", scale)


def _fitting(table: Table, runs: Sequence[Run], scale: str) -> list[Run]:
    """Runs of a scale, if one is of an experiment of the table: composing its cells takes a while."""
    there = [run for run in runs if run.results.scale == scale]
    named = _experiments(table)
    return there if not named or named & {run.results.experiment for run in there} else []


def fill(table: Table, runs: Sequence[Run], scale: str, words: Overrides = ()) -> Joined:
    """`table` joined with the runs of one scale; `words` are as in `joined_tables`, those that its command lacks are
    left out.
    """
    if not table.at(scale).jobs():
        return _empty(table, scale)
    schema = _schema(table.paper, table.command) if words else object
    given = [word for word in words if _knows(schema, key_of(word))]
    with ExitStack() as stack:
        compose = cache(lambda: stack.enter_context(sweep.composing(table.paper, table.command)))

        def settings(own: Overrides) -> str:
            words = tuple(merged(given, own))
            which = (table.paper, table.command, scale, words)
            if which not in _composed:
                with sweep.naming(table, own):
                    keys = sweep.keys_of(compose()([f"scale={scale}", *words]))
                _composed[which] = digest_of({key: value for key, value in keys.items() if key != "seed"})
            return _composed[which]

        return join(table.at(scale), runs, settings, scale)


def _scales(runs: Sequence[Run]) -> list[str]:
    there = {run.results.scale for run in runs}
    return [scale for scale in SCALES if scale in there]


def _experiments(table: Table) -> set[str]:
    words = [word for job, _ in table.jobs() for word in job]
    return {word.partition("=")[2] for word in words if key_of(word) == "experiment"}


def grid_of(joined: Joined) -> Grid:
    """Published, reproduced with its interval, difference and verdict: a line for each cell, column by column."""
    table = joined.table
    unit = table.shared.unit if table.shared else ""
    head = ["column", "row", "published", f"reproduced {unit}".rstrip(), "95 % interval", "difference", "seeds"]
    told = published.known(table.paper).told
    head += ["against", "paired difference", "verdict", *([told] if told else [])]
    body, ends = [], []
    for column in table.columns:
        cells = [cell for cell in joined.cells if cell.cell.column == column]
        body += [_line(table, cell) + ([_told(joined, cell, told)] if told else []) for cell in cells]
        ends.append(len(body) - 1)
    name = f"{table.where}: {table.title}" if table.where else f"{table.title} (ours)"
    title = f"{table.paper} {table.name}, scale={joined.scale}. {name}"
    return Grid(title, head, body, left=2, ends=ends[:-1], notes=notes_of(joined))


def notes_of(joined: Joined) -> list[str]:
    """Lines below the table: its remarks, where its runs were made, what is missing and the command that fills it."""
    notes = remarks_of(joined) + ([_made(joined)] if joined.runs else [])
    return notes + ([f"{missing(joined)} To fill them: {command_of(joined)}"] if joined.missing else [])


def missing(joined: Joined) -> str:
    """What is missing, in words; empty: nothing."""
    empty = sum(cell.verdict is Verdict.missing for cell in joined.cells)
    return f"{empty} of {len(joined.cells)} cells lack {_runs(joined.missing)}." if joined.missing else ""


def _runs(of: Sized) -> str:
    return "1 run" if len(of) == 1 else f"{len(of)} runs"


def remarks_of(joined: Joined) -> list[str]:
    """The table's note, the sources of its numbers, the notes of its rows."""
    notes = [joined.table.note] if joined.table.note else []
    used = {mark for cell in joined.cells if (mark := _mark(cell))}
    kinds = [f"{mark} {meaning}" for mark, meaning in sorted(MARKS.values()) if mark in used]
    notes += [f"Published: {', '.join(kinds)}."] if kinds else []
    own: dict[str, list[str]] = {}
    for row, axis in joined.table.rows.items():
        notes += [f"{row}: {axis.claim}."] if axis.claim else []
        own.setdefault(axis.note, []).append(row)
    notes += [f"{'; '.join(rows)}: {note}." for note, rows in own.items() if note]
    alone = [cell for cell in joined.cells if cell.seeds == 1 and not joined.table.rows[cell.cell.row].once]
    if alone:
        of = "test items" if any(cell.counted for cell in alone) else "repeated measurements"
        notes.append(f"Intervals and verdicts of one seed are over its {of} alone.")
    stronger = [f"{each.cell.column}, {each.cell.row} ({each.stronger})" for each in joined.cells if each.stronger]
    notes += [f"No verdict, as another baseline is better: {'; '.join(stronger)}."] if stronger else []
    rules = {cell.best for cell in joined.cells if cell.best}
    notes += [f"Best shortcut rule, chosen on the test split: {', '.join(sorted(rules))}."] if rules else []
    return notes


def _made(joined: Joined) -> str:
    """Number, time, hardware and revision of the runs behind the table."""
    of = [run.results for run in joined.runs]
    where = {f"{each.hardware.get('cpu', 'unknown')}, {each.hardware.get('device', 'cpu')}" for each in of}
    code = {each.revision[:7] + (" with changes" if each.dirty else "") for each in of}
    seconds = duration(sum(each.wall_seconds for each in of))
    return f"{_runs(of)}, {seconds} in all; {'; '.join(sorted(where))}; revision {', '.join(sorted(code))}."


def command_of(joined: Joined, root: Path = USUAL) -> str:
    """The command that runs what is missing; its runs lie below `root`."""
    table = joined.table
    words = [f"+sweep={table.name}", f"scale={joined.scale}", "seed=0,1,2"]
    measured = any(table.measure(column).unit in MEASURED for column in table.columns)
    words += [] if measured else ["hydra/launcher=local"]
    words += [] if root == USUAL else [f"loop.root={root}"]
    return shlex.join(["python", "-m", f"{table.paper}.{table.command}", "-m", *words])


def _line(table: Table, cell: Filled) -> list[str]:
    measure = table.measure(cell.cell.column)
    against = table.rows[cell.cell.row].against if cell.apart else ""
    line = [table.heading(cell.cell.column), cell.cell.row, published_text(table, cell), measure.text(cell.value)]
    line += [f"{measure.text(cell.low)} to {measure.text(cell.high)}" if cell.value is not None else ""]
    line += [measure.text(cell.difference, signed=True), str(cell.seeds or ""), against]
    apart = ""
    if cell.apart:
        value, low, high = (measure.text(each, signed=True) for each in cell.apart)
        apart = f"{value} ({low} to {high})"
    return [*line, apart, str(cell.verdict or "")]


def _told(joined: Joined, cell: Filled, name: str) -> str:
    """What the configurations of a cell's runs say of a property; empty without a run."""
    of = [run for words in cell.cell.runs for run in joined.found.get(words, {}).values()]
    return ", ".join(sorted({str(getattr(run.typed, name)).lower() for run in of}))


def published_text(table: Table, cell: Filled) -> str:
    """The published number with the mark of its source."""
    known = cell.cell.published
    if known is None:
        return ""
    if known.value is None:
        return known.text or NOT_REACHED
    return f"{table.measure(cell.cell.column).text(known.value)} {_mark(cell)}".rstrip()


def _mark(cell: Filled) -> str:
    known = cell.cell.published
    return MARKS[known.source][0] if known and known.value is not None and known.source in MARKS else ""
