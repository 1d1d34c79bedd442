"""What an exact outer gradient costs: this engine against `higher`, plain torch and TorchOpt, as ratios from one run.

    python -m scripts.benchmark_engine --quick                   a few minutes on two cores
    python -m scripts.benchmark_engine sgd lora                  two groups at full size
    python -m scripts.benchmark_engine --markdown table.md       all of them, and the tables to a file

Every case runs in a process of its own. Memory is the process's resident peak above model and libraries; "allocated" is
what torch asked for, whatever the C library kept. A group's first reference runs again at its end: how far the two are
apart is the noise. Needs the extra packages of `pip install -e '.[benchmark]'`.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from common.environment import describe
from common.files import write_atomic
from common.progress import Progress
from scripts.engine_groups import Case, Group, groups, quick_groups, with_run
from scripts.engine_results import MIB, Result, ratio, read_result, same_gradient, verdict

COLUMNS = (
    "case", "exact", "peak MiB", "ratio", "allocated MiB", "ratio", "seconds", "ratio", "first call s", "GFLOP",
    "target",
)  # fmt: skip
AGAIN = " (again)"


def run_case(case: Case) -> Result:
    """In a process of its own; what goes wrong there becomes the result's error."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(case.threads))
    words = [sys.executable, "-m", "scripts.engine_case", json.dumps(asdict(case))]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return Result(error=(done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return read_result(done.stdout)


def run_group(group: Group, progress: Progress, done: int) -> dict[str, Result]:
    """Results by label; the first reference stands there twice."""
    results: dict[str, Result] = {}
    labels = [(row.label, row.case) for row in group.rows]
    for label, case in [*labels, (labels[0][0] + AGAIN, labels[0][1])]:
        results[label] = run_case(case)
        progress.update(done + len(results))
    return results


def table(group: Group, results: Mapping[str, Result]) -> list[list[str]]:
    """The cells of every row, without header."""
    return [
        _cells(row.label, row.case, results[row.label], results[row.against], row.memory, row.time)
        for row in group.rows
    ]


def _cells(
    label: str, case: Case, found: Result, reference: Result, memory: float | None, seconds: float | None
) -> list[str]:
    if found.error:
        return [label, "", *[""] * (len(COLUMNS) - 3), f"failed: {found.error}"]
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


def lines(group: Group, results: Mapping[str, Result]) -> Iterator[str]:
    """The group as Markdown."""
    yield f"### {group.name}"
    yield ""
    yield group.question
    yield ""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| --- | --- |{' ---: |' * (len(COLUMNS) - 3)} --- |"
    for cells in table(group, results):
        yield f"| {' | '.join(cells)} |"
    yield ""
    first = group.rows[0].label
    one, other = results[first], results[first + AGAIN]
    if not one.error and not other.error:
        yield f"- noise: the reference took {other.median / one.median:.2f} of its own time when run again at the end"
    for note in group.notes(results):
        yield f"- {note}"
    yield ""


def wrong(group: Group, results: Mapping[str, Result]) -> list[str]:
    """Cases that failed, or whose gradient is not the one it must be."""
    return [cells[0] for cells in table(group, results) if cells[1] == "NO" or cells[-1].startswith("failed")]


def header(words: Sequence[str], threads: int) -> str:
    """Where and with what the numbers were made."""
    found = describe()
    machine, libraries = found["hardware"], found["libraries"]
    device = ", ".join(machine["cuda"]) or "no GPU"
    state = " with local changes" if found["dirty"] else ""
    return (
        f"`python -m scripts.benchmark_engine {' '.join(words)}` on {datetime.now(UTC):%Y-%m-%d}, revision "
        f"{found['revision'][:7]}{state}: {machine['cpu']}, {machine['cores']} cores, {device}, {threads} thread(s), "
        f"{', '.join(f'{name} {libraries[name]}' for name in ('torch', 'transformers', 'peft'))}.\n"
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark_engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [group.name for group in groups()]
    parser.add_argument("group", nargs="*", help=f"groups to run, default all: {', '.join(names)}")
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes, nothing compiled; targets do not hold there"
    )
    parser.add_argument("--repeats", type=int, help="timed repeats of a case (default: the group's own)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a case (default 1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--markdown", type=Path, help="write the tables there too")
    parser.add_argument("--csv", type=Path, help="write the numbers there, a line a case")
    parser.add_argument("--list", action="store_true", help="say what each group measures, and stop")
    options = parser.parse_args(words)
    there = [group.name for group in quick_groups()] if options.quick else names
    if unknown := set(options.group) - set(there):
        parser.error(f"no group {', '.join(sorted(unknown))} here; choose from {', '.join(there)}")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Run, print, write; exit status 1 if a case failed or is not exact."""
    given = sys.argv[1:] if words is None else list(words)
    options = parse(given)
    chosen = [
        with_run(group, threads=options.threads, device=options.device, repeats=options.repeats)
        for group in (quick_groups() if options.quick else groups())
        if not options.group or group.name in options.group
    ]
    if options.list:
        for group in chosen:
            sys.stdout.write(f"{group.name:10}{len(group.rows):3} cases  {group.question}\n")
        return
    text, bad, done = header(given, options.threads) + "\n", [], 0
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(["group", *COLUMNS])
    sys.stdout.write(text)
    with Progress(0, sum(len(group.rows) + 1 for group in chosen)) as progress:
        for group in chosen:
            results = run_group(group, progress, done)
            done += len(results)
            part = "\n".join(lines(group, results)) + "\n"
            sys.stdout.write(part)
            sys.stdout.flush()
            text += part
            writer.writerows([group.name, *cells] for cells in table(group, results))
            bad += [f"{group.name}: {label}" for label in wrong(group, results)]
            if options.markdown:  # after every group, so that a run that is cut off leaves what it has
                write_atomic(options.markdown, text)
            if options.csv:
                write_atomic(options.csv, sheet.getvalue())
    if bad:
        sys.stderr.write("failed or not exact: " + "; ".join(bad) + "\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
