"""All results on one HTML page that needs no network: tables, figures, costs, and what is missing.

    python -m scripts.report                                everything below runs, into report.html
    python -m scripts.report root=elsewhere paper=reckoning output=reckoning.html

Every published table with its verdicts, learning curves, learned rates, accuracy over hops and distractors, pictures
and videos of runs, what questions cost, the audit of shortcuts; below each the command that makes it.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import garbage
from common.errors import UserError
from common.run.files import write_atomic
from common.tables import published
from common.tables.cells import Overrides
from common.tables.damaged import without_damaged
from common.tables.join import Joined
from common.tables.runs import Run, read_runs
from scripts.report import axes, cost, curves, media, rates, studies, summary, tables, worth
from scripts.report.colours import Colours
from scripts.report.page import Block, Figure, Page, Section, render
from scripts.tables.published_tables import all_tables, every_paper, kept_settings, overrides_of
from scripts.words import mistakes_told, split_off, values_of

KEYS = {"root": "runs", "paper": "", "output": "report.html"}
MOST_BYTES = 5_000_000
"""Size that the page stays below."""


def parse(words: Sequence[str]) -> tuple[dict[str, str], Overrides]:
    """key=value words, and overrides of every cell of the published tables.

    Raises:
        UserError: an unknown key.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = (
        "root=<folder of the runs, default runs>, paper=<default: all>, output=<file, default report.html>, and as in "
    )
    text += "scripts.tables overrides of every cell, such as inner.eps=1e-8"
    parser.add_argument("words", nargs="*", metavar="key=value", help=text)
    own, others = split_off(parser.parse_args(words).words, list(KEYS))
    given = {**KEYS, **values_of(own, list(KEYS))}
    return given, overrides_of(others, [given["paper"]] if given["paper"] else every_paper(), list(KEYS))


def page_of(root: Path, paper: str, command: str, overrides: Overrides = ()) -> Page:
    """The page of the runs below `root`; `overrides` are those of every cell.

    Raises:
        UserError: no such paper.
    """
    papers = [published.read(name) for name in ([paper] if paper else every_paper())]
    runs, unfinished = read_runs(root, paper or None, None) if root.is_dir() else ([], [])
    named = {each.name for each in papers}
    runs = [run for run in runs if run.results.paper in named]
    with kept_settings(root):
        return without_damaged(runs, lambda kept: _page(root, papers, kept, unfinished, command, overrides))


def _page(
    root: Path,
    papers: Sequence[published.Paper],
    runs: Sequence[Run],
    unfinished: Sequence[str],
    command: str,
    overrides: Overrides,
) -> Page:
    studied = [run for run in runs if (run.folder / cost.CURVE).is_file()]
    joined = all_tables(runs, papers, overrides)
    colours = Colours([table for each in papers for table in each.tables.values()])
    trained = [each for each in joined if all(run.of_method for run in each.runs)]
    groups = list(curves.groups_of(trained))
    blocks = [(each, tables.block(each, root)) for each in joined]
    show = ("page", command)
    drawn = curves.note([group for _, own in groups for group in own])
    sections = [
        Section("Overview", "overview", [Block("", "all-tables", table=tables.overview(blocks))]),
        Section("Tables", "tables", [_with_axis(each, made, colours, show) for each, made in blocks]),
        Section("Learning curves", "curves", _blocks(groups, "curves", root, show, colours), [drawn]),
        Section("Learned rates", "rates", _blocks(groups, "rates", root, show, colours), [rates.NOTE]),
        Section("Studies", "studies", studies.blocks(runs), [studies.NOTE]),
        Section("Media", "media", media.blocks(runs), [media.NOTE]),
        Section("Cost", "cost", _costs(studied, groups, colours, show)),
        Section("Shortcut audit", "audit", _audit(runs, show)),
        Section("Other runs", "others", summary.others(_beside(runs, joined), root)),
        Section("What is missing", "missing", _missing(joined, papers, unfinished, root)),
    ]
    facts = summary.facts(runs, len(unfinished))
    return Page("innerloop: published and reproduced", facts, [each for each in sections if each.blocks], command)


def _with_axis(joined: Joined, made: Block, colours: Colours, show: tuple[str, str]) -> Block:
    if not joined.table.axis:
        return made
    return replace(made, figures=[axes.figure(joined, colours)], commands=[*made.commands, ("figure", show[1])])


def _blocks(
    groups: Sequence[tuple[Joined, list[curves.Group]]], kind: str, root: Path, show: tuple[str, str], colours: Colours
) -> list[Block]:
    """Learning curves or learned rates of every table that has some; one that says so where none has."""
    found = []
    for joined, own in groups:
        figure = curves.figure(joined, own, colours) if kind == "curves" else rates.figure(joined, own)
        if figure is not None:
            label = tables.label_of(joined.table)
            anchor = f"{kind}-{tables.anchor_of(joined)}"
            ways = [tables.commands(joined, root)[0], ("figure", show[1])]
            found.append(Block(joined.table.title, anchor, label, figures=[figure], commands=ways))
    word = "learning curve (metrics.jsonl)" if kind == "curves" else "record of its rates (rates.json)"
    empty = Figure(kind, [], empty=f"No finished run of a published table has a {word}.")
    return found or [Block("", f"no-{kind}", figures=[empty])]


def _costs(
    studied: Sequence[Run], groups: Sequence[tuple[Joined, list[curves.Group]]], colours: Colours, show: tuple[str, str]
) -> list[Block]:
    found = [cost.block(run, colours, f"cost-{index}") for index, run in enumerate(studied, 1)]
    if not found:
        empty = Figure("cost", [], empty="No run of the run-time study is there.")
        way = ("run", "python -m reckoning.cost scale=cpu")
        found = [Block("What questions cost", "no-cost", figures=[empty], commands=[way])]
    if (times := cost.training(groups)) is not None:
        found.append(Block("Training and evaluation", "cost-training", table=times, commands=[show]))
    if drawn := worth.figures(groups, colours):
        found.append(Block("Cost against score", "cost-worth", figures=drawn, commands=[show]))
    return found


def _audit(runs: Sequence[Run], show: tuple[str, str]) -> list[Block]:
    table = summary.audit(runs)
    if table is None:
        return []
    note = "Accuracy in per cent on the test split; rules that learn see the training split alone. The best in bold."
    return [Block("", "audit-rules", notes=[note], table=table, commands=[show])]


def _beside(runs: Sequence[Run], joined: Sequence[Joined]) -> list[Run]:
    """Runs that no published table has."""
    used = {run.folder for each in joined for run in each.runs}
    hashes = {run.results.config_hash for each in joined for run in each.runs}
    return [run for run in runs if run.folder not in used and run.results.config_hash not in hashes]


def _missing(
    joined: Sequence[Joined], papers: Sequence[published.Paper], unfinished: Sequence[str], root: Path
) -> list[Block]:
    found = []
    if (table := summary.missing(joined, root)) is not None:
        found.append(Block("Cells without runs", "missing-cells", table=table))
    if unfinished:
        note = f"{len(unfinished)} runs were begun and are not finished; their sweep's command continues them."
        found.append(Block("Runs that are not finished", "unfinished", lines=[note, *unfinished]))
    if (table := summary.not_reached(papers)) is not None:
        found.append(Block("Published, without a cell here", "not-reached", table=table))
    return found


def write(words: Sequence[str]) -> Path:
    """Write the page and return its path.

    Raises:
        UserError: a mistake in the words, a run that cannot be read, or a place that cannot be written to.
    """
    given, overrides = parse(words)
    command = shlex.join(["python", "-m", "scripts.report", *words])
    path = Path(given["output"])
    text = render(page_of(Path(given["root"]), given["paper"], command, overrides)).encode()
    try:
        write_atomic(path, text)
    except OSError as error:
        raise UserError(f"output={path}: cannot be written ({error.strerror or error}); name another file") from error
    size = f"{len(text) / 1e6:.1f} MB" if len(text) > 1e5 else f"{len(text) / 1e3:.0f} kB"
    sys.stdout.write(f"{path}: {size}; open it in a browser\n")
    if len(text) > MOST_BYTES:
        sys.stderr.write(f"{path} is larger than {MOST_BYTES / 1e6:.0f} MB; paper=<one> makes it smaller\n")
    return path


def main() -> None:
    """Write, or say what is wrong."""
    garbage.rarely()
    with mistakes_told():
        write(sys.argv[1:])


if __name__ == "__main__":
    main()
