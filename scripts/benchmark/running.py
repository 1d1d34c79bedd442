"""Benchmarks as groups of cases, each case in a process of its own; their tables, with ratios to a reference.

Memory is the process's resident peak above model and libraries; "allocated" is what torch asked for, whatever the C
library kept. Seconds on one thread are those that the process had, so that other processes take none of them. A
group's first reference runs again at its end: how far the two are apart is the noise.
"""

import argparse
import csv
import importlib
import io
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

from common.errors import UserError
from common.run.environment import describe
from common.run.files import write_atomic
from common.run.progress import Progress
from scripts.benchmark.case_results import MIB, Result, ratio, same_gradient, to_result, verdict
from scripts.benchmark.kept import Kept

COLUMNS = (
    "case", "exact", "peak MiB", "ratio", "allocated MiB", "ratio", "seconds", "ratio", "first call s", "GFLOP",
    "target",
)  # fmt: skip
AGAIN = " (again)"
MISSED = ": missed"
"""Stands in a table or below it where a target was set."""
FULL = "out of memory"
"""Stands in a table as a result."""
LIBRARIES = ["torch", "peft", "transformers.models.gpt2.modeling_gpt2", "transformers.models.qwen2.modeling_qwen2"]
"""Imported once: every case's process begins as a copy of one that has them."""
Results = Mapping[str, Result]
"""By label."""
Notes = Callable[[Results], list[str]]
"""Lines below a table."""


@dataclass(frozen=True, kw_only=True)
class AnyCase:
    """What all cases have."""

    module: ClassVar[str]
    """Where `measure(case)` is, which returns the fields of a `Result`."""
    threads: int = 1
    repeats: int = 3
    device: str = "cpu"

    @property
    def exact(self) -> bool:
        """Whether its gradient must be that of the reference."""
        return False


@dataclass(frozen=True)
class Row:
    """A case of a group; targets are ratios to the reference, of resident memory and of time."""

    label: str
    case: AnyCase
    memory: float | None = None
    time: float | None = None
    against: str = ""
    """Label of its reference."""


@dataclass(frozen=True)
class Group:
    """Cases that answer one question together. Rows with one reference stand together, the reference among them."""

    name: str
    question: str
    rows: tuple[Row, ...]
    notes: Notes = lambda results: []
    """What the figures come to, a bullet point each."""
    after: Notes = lambda results: []
    """Further lines of Markdown, as they are."""


def block(*rows: Row) -> tuple[Row, ...]:
    """Rows whose reference is the first of them."""
    return tuple(replace(each, against=rows[0].label) for each in rows)


def with_run(group: Group, *, threads: int, device: str, repeats: int | None) -> Group:
    """The same cases on these threads and this device; `repeats=None` leaves the group's own."""
    changes: dict[str, Any] = {"threads": threads, "device": device}
    changes |= {} if repeats is None else {"repeats": repeats}
    rows = tuple(replace(each, case=replace(each.case, **changes)) for each in group.rows)
    return replace(group, rows=rows)


def run_case(case: AnyCase) -> Result:
    """In a process of its own; what goes wrong there becomes the result's error."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(LIBRARIES)
    mine, its = processes.Pipe(duplex=False)
    with NamedTemporaryFile() as said:
        process = processes.Process(target=_measured, args=(case, its, said.name))
        process.start()
        its.close()
        try:
            found = mine.recv()
        except EOFError:
            process.join()
            last = Path(said.name).read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            found = {"error": f"exit status {process.exitcode} {last}".strip()}
        process.join()
    return to_result(found)


def _measured(case: AnyCase, answer: Connection, words: str) -> None:
    """What a case's process does; its stderr, where torch's profiler talks, goes to the file `words`."""
    with open(words, "wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        found = importlib.import_module(case.module).measure(case)
    except UserError as error:
        found = {"error": str(error)}
    except Exception as error:  # whatever it is, it belongs into the table
        full = FULL in str(error) or isinstance(error, MemoryError)
        found = {"error": FULL if full else traceback.format_exception_only(error)[-1].strip()}
    answer.send(found)


def run_group(group: Group, progress: Progress, done: int, kept: Kept) -> dict[str, Result]:
    """Results by label; the first reference stands there twice."""
    results: dict[str, Result] = {}
    labels = [(row.label, row.case) for row in group.rows]
    for label, case in [*labels, (labels[0][0] + AGAIN, labels[0][1])]:
        results[label] = kept.of(f"{group.name}: {label}: {case}", partial(run_case, case))
        progress.update(done + len(results))
    return results


def table(group: Group, results: Results) -> list[list[str]]:
    """The cells of every row, without header."""
    return [
        _cells(row.label, row.case, results[row.label], results[row.against], row.memory, row.time)
        for row in group.rows
    ]


def _cells(
    label: str, case: AnyCase, found: Result, reference: Result, memory: float | None, seconds: float | None
) -> list[str]:
    if found.error:
        said = FULL if found.error == FULL else f"failed: {found.error}"
        return [label, "", *[""] * (len(COLUMNS) - 3), said]
    exact = ""
    if case.exact:
        exact = "?" if reference.error else "yes" if same_gradient(found, reference) else "NO"
    pairs = [
        (found.peak / MIB, reference.peak / MIB, "{:.0f}"),
        (found.allocated / MIB, reference.allocated / MIB, "{:.0f}"),
        (found.median, reference.median, "{:.3f}"),
    ]
    cells = []
    for value, other, form in pairs:
        share = ratio(value, other)
        cells += [form.format(value), "" if share is None else f"{share:.2f}"]
    targets = [
        f"{name} {verdict(share, most)}"
        for name, most, value, other in (
            ("memory", memory, found.peak, reference.peak),
            ("time", seconds, found.median, reference.median),
        )
        if most is not None and (share := ratio(value, other)) is not None
    ]
    flops = f"{found.flops / 1e9:.1f}" if found.flops else ""
    return [label, exact, *cells, f"{found.first:.1f}", flops, "; ".join(targets)]


def lines(group: Group, results: Results) -> Iterator[str]:
    """The group as Markdown; a column without a single cell is left out."""
    yield f"### {group.name}"
    yield ""
    yield group.question
    yield ""
    rows = table(group, results)
    there = [place for place in range(len(COLUMNS)) if any(cells[place] for cells in rows)]
    yield f"| {' | '.join(COLUMNS[place] for place in there)} |"
    yield f"|{'|'.join(' --- ' if COLUMNS[place] in ('case', 'exact', 'target') else ' ---: ' for place in there)}|"
    for cells in rows:
        yield f"| {' | '.join(cells[place] for place in there)} |"
    yield ""
    first = group.rows[0].label
    one, other = results[first], results[first + AGAIN]
    if not one.error and not other.error:
        yield f"- noise: the reference took {other.median / one.median:.2f} of its own time when run again at the end"
    for note in group.notes(results):
        yield f"- {note}"
    yield ""
    yield from group.after(results)


def wrong(group: Group, results: Results) -> list[str]:
    """Cases that failed, or whose gradient is not the one it must be."""
    return [cells[0] for cells in table(group, results) if cells[1] == "NO" or cells[-1].startswith("failed")]


def header(command: str, words: Sequence[str], threads: int, found: Mapping[str, Any]) -> str:
    """Where and with what the numbers were made, by what `describe` has found."""
    machine, libraries = found["hardware"], found["libraries"]
    device = ", ".join(machine["cuda"]) or "no GPU"
    state = " with local changes" if found["dirty"] else ""
    return (
        f"`{' '.join(['python -m', command, *words])}` on {datetime.now(UTC):%Y-%m-%d}, revision "
        f"{found['revision'][:7]}{state}: {machine['cpu']}, {machine['cores']} cores, {device}, {threads} thread(s), "
        f"{', '.join(f'{name} {libraries[name]}' for name in ('torch', 'transformers', 'peft'))}.\n"
    )


def parser(command: str, description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks have, for groups called `names`."""
    made = argparse.ArgumentParser(
        prog=f"python -m {command}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("group", nargs="*", help=f"groups to run, default all: {', '.join(names)}")
    made.add_argument("--repeats", type=int, help="timed repeats of a case (default: the group's own)")
    made.add_argument("--threads", type=int, default=1, help="CPU threads of a case (default 1)")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--markdown", type=Path, help="write the tables there too")
    made.add_argument("--csv", type=Path, help="write the numbers there, a line a case")
    made.add_argument("--keep", type=Path, help="keep every case's result there; one that this revision has is not run")
    made.add_argument("--check", action="store_true", help="exit status 1 also where a target is missed")
    made.add_argument("--list", action="store_true", help="say what each group measures, and stop")
    return made


def chosen(made: argparse.ArgumentParser, options: argparse.Namespace, there: Sequence[Group]) -> list[Group]:
    """The groups that the command line asks for, run as it says; ends the command where one is unknown."""
    names = [group.name for group in there]
    if unknown := set(options.group) - set(names):
        made.error(f"no group {', '.join(sorted(unknown))} here; choose from {', '.join(names)}")
    return [
        with_run(group, threads=options.threads, device=options.device, repeats=options.repeats)
        for group in there
        if not options.group or group.name in options.group
    ]


def carry_out(command: str, words: Sequence[str], options: argparse.Namespace, groups: Sequence[Group]) -> None:
    """Run, print, write; exit status 1 if a case failed or is not exact, or (--check) missed its target."""
    if options.list:
        for group in groups:
            sys.stdout.write(f"{group.name:10}{len(group.rows):3} cases  {group.question}\n")
        return
    found = describe()
    if options.keep and found["dirty"]:
        raise UserError(f"--keep {options.keep} with local changes: results are kept by revision; commit them first")
    kept = Kept(options.keep, found["revision"])
    text, bad, done = header(command, words, options.threads, found) + "\n", [], 0
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["group", *COLUMNS])
    sys.stdout.write(text)
    with Progress(0, sum(len(group.rows) + 1 for group in groups)) as progress:
        for group in groups:
            results = run_group(group, progress, done, kept)
            done += len(results)
            part = "\n".join(lines(group, results)) + "\n"
            sys.stdout.write(part)
            sys.stdout.flush()
            text += part
            writer.writerows([group.name, *cells] for cells in table(group, results))
            bad += [f"{group.name}: {label}" for label in wrong(group, results)]
            bad += [f"{group.name}: {line}" for line in part.splitlines() if options.check and MISSED in line]
            if options.markdown:  # after every group, so that a run that is cut off leaves what it has
                write_atomic(options.markdown, text)
            if options.csv:
                write_atomic(options.csv, sheet.getvalue())
    if bad:
        sys.stderr.write("failed, not exact or below target: " + "; ".join(bad) + "\n")
        raise SystemExit(1)
