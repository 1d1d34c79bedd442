"""Published numbers beside reproduced ones, and comparisons of the runs that are there.

    python -m scripts.tables                                       every published table with a run, else comparisons
    python -m scripts.tables table=table1 scale=cpu                one of them, with what is missing and how to get it
    python -m scripts.tables table=table1 scale=cpu --format md    term, md, latex or csv
    python -m scripts.tables experiment=proofwriter_repaired       all runs of an experiment side by side
    python -m scripts.tables root=elsewhere paper=reckoning        runs in another folder
    python -m scripts.tables paper=reckoning scale=cpu inner.eps=1e-8   runs whose cells have this setting besides

A cell is filled by the runs with its settings, found by the hash of their configuration, whatever their folders are
called. A key=value word of a run's configuration is an override of every cell of the published tables, below the cell's
own; the command that a table names for what is missing goes without it. Intervals are of 95 %: Student's, over seeds
and theories together, for shares no narrower than Wilson's. A row is compared with another one in pairs over the test
items; the verdict says whether the paper's order holds beyond the interval.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import garbage
from common.errors import UserError
from common.tables.damaged import without_damaged
from common.tables.runs import read_runs
from scripts.tables import comparison
from scripts.tables.grids import FORMATS, render
from scripts.tables.published_tables import every_paper, grid_of, joined_tables, overrides_of
from scripts.words import mistakes_told, split_off, values_of

KEYS = ("root", "paper", "table", "scale", "experiment")


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Options and key=value words.

    Raises:
        UserError: an unknown key.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="root=<folder of the runs, default runs>, paper=, table=, scale=, experiment=, overrides of every cell "
        "such as inner.eps=1e-8, where its paper has the key; without them everything",
    )
    parser.add_argument("--format", choices=FORMATS, default="term", help="default: term")
    parser.add_argument(
        "--shortcuts",
        type=int,
        default=5,
        metavar="N",
        help="with experiment=: list the N best shortcut rules and the trained classifiers; 0: all (default 5)",
    )
    options = parser.parse_intermixed_args(words)
    own, others = split_off(options.words, KEYS)
    given = {"root": "runs", **values_of(own, KEYS)}
    options.overrides = overrides_of(others, [given["paper"]] if "paper" in given else every_paper(), KEYS)
    if "experiment" in given and ("table" in given or others):
        what = "table= fills a published table" if "table" in given else f"{others[0]} is for published tables"
        raise UserError(f"experiment= compares the runs of an experiment, {what}; give one")
    return options, given


def show(words: Sequence[str]) -> None:
    """Print what was asked for."""
    options, given = parse(words)
    root = Path(given["root"])
    if "experiment" not in given:
        papers = [given["paper"]] if "paper" in given else every_paper()
        tables = joined_tables(root, papers, given.get("table"), given.get("scale"), options.overrides)
        for table in tables:
            sys.stdout.write(render(grid_of(table), options.format) + "\n")
        if tables:
            return
        if options.overrides:
            raise UserError(f"root={root}: no run of a published table with {' '.join(options.overrides)}")
    runs, unfinished = read_runs(root, given.get("paper"), given.get("experiment"))
    without_damaged(runs, lambda kept: comparison.show(root, kept, unfinished, options.format, options.shortcuts))


def main() -> None:
    """Print, or say what is wrong."""
    garbage.rarely()
    with mistakes_told():
        show(sys.argv[1:])


if __name__ == "__main__":
    main()
