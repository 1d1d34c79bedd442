"""Finished runs in one file of the repository, so that tables and reports can be made again without running anything.

    python -m scripts.archive pack paper=reckoning                 runs -> docs/results/reckoning.runs.tar.xz
    python -m scripts.archive unpack paper=reckoning               and back, for tables, reports and sweeps to find
    python -m scripts.archive pack paper=reckoning root=elsewhere  runs in another folder

A run is kept with its settings, results, items, metrics and learned rates; weights, checkpoints, logs and media stay
behind. Packing adds to what the archive holds: of two runs with the same settings, or in folders of the same name, the
one begun later is kept. Where a run was made (folders, host, W&B account) does not enter; a run whose files still hold
an absolute path, a host, a user or a key is left out and named. Unpacking changes no folder that exists and skips runs
that are there already; an archive that unpacks to more than limit_mb megabytes (512) is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic, write_synced
from common.run.finished import finished_below
from common.run.folder import lock
from common.run.swap import new_folder
from common.tables.runs import read_runs
from scripts.archive.form import LARGEST_MB, read, written
from scripts.archive.keeping import newest, packed_of, unfit
from scripts.tables.published_tables import USUAL, every_paper
from scripts.words import mistakes_told, values_of

ACTIONS = ("pack", "unpack")
KEYS = ("paper", "root", "limit_mb")
FOLDER = Path("docs/results")


def archive_of(paper: str) -> Path:
    """Where the runs of a paper are kept."""
    return FOLDER / f"{paper}.runs.tar.xz"


def pack(paper: str, root: Path, limit_mb: int = LARGEST_MB) -> Path:
    """Add the finished runs below `root` to the paper's archive and return its path.

    Raises:
        UserError: there is no run, one cannot be read, another process is packing, or the place cannot be written to.
    """
    path = archive_of(paper)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.parent):  # what the archive holds is read, added to and written
            return _pack(path, paper, root, limit_mb)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); free space there") from error


def _pack(path: Path, paper: str, root: Path, limit_mb: int) -> Path:
    kept = read(path, paper, limit_mb) if path.is_file() else []
    found, left_out = [], []
    for run in read_runs(root, paper, None)[0]:
        packed = packed_of(run)
        if reason := unfit(packed, run):
            left_out.append(f"{run.folder}: {reason}")
        else:
            found.append(packed)
    merged, dropped = newest([*kept, *found])
    if not merged:
        raise UserError("\n  ".join([f"root={root}: no finished run of {paper} that can be kept", *left_out]))
    write_atomic(path, written(merged))
    before = {run.digest: run.files for run in kept}
    added = sum(before.get(run.digest) != run.files for run in merged)
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    sys.stdout.write(f"{path}: {len(merged)} runs, {added} of them new from {root}; {size}\n")
    for line in dropped:
        sys.stdout.write(f"replaced: {line}\n")
    for line in left_out:
        sys.stderr.write(f"left out: {line}\n")
    return path


def unpack(paper: str, root: Path, limit_mb: int = LARGEST_MB) -> list[Path]:
    """Put the runs of the paper's archive below `root`; returns the folders made.

    Raises:
        UserError: no archive, one that is not ours or too large, or a place that cannot be written to.
    """
    path = archive_of(paper)
    if not path.is_file():
        raise UserError(f"paper={paper}: there is no {path}; run this in the repository's folder, or pack one first")
    there, runs = finished_below(root), read(path, paper, limit_mb)
    made: list[Path] = []
    known = [run for run in runs if run.digest in there]
    for run in runs:
        folder = root / run.place
        if run.digest in there:
            continue
        if folder.exists():
            sys.stderr.write(f"left as it is: {folder} holds another run; move it away to unpack this one\n")
            continue
        try:
            with new_folder(folder) as temporary:
                for name, content in run.files.items():
                    write_synced(temporary / name, content)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error}); free space there") from error
        made.append(folder)
    beside = f", {len(known)} were there" if known else ""
    sys.stdout.write(f"{root}: {len(made)} of {len(runs)} runs unpacked from {path}{beside}\n")
    return made


def parse(words: Sequence[str]) -> tuple[str, str, Path, int]:
    """The action, the paper, the folder of the runs, and how many megabytes an archive may hold.

    Raises:
        UserError: an unknown action, key or paper, or a limit that is no number above 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.archive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=ACTIONS)
    text = "paper=<one>, root=<folder of the runs, default runs>, limit_mb=<default 512>"
    parser.add_argument("words", nargs="*", metavar="key=value", help=text)
    options = parser.parse_args(words)
    given = {"root": str(USUAL), "paper": "", "limit_mb": str(LARGEST_MB), **values_of(options.words, KEYS)}
    if given["paper"] not in (papers := every_paper()):
        raise UserError(f"paper={given['paper']}: give one of {', '.join(papers)}")
    if not (given["limit_mb"].isascii() and given["limit_mb"].isdigit() and int(given["limit_mb"]) > 0):
        raise UserError(f"limit_mb={given['limit_mb']}: give a number of megabytes above 0")
    return options.action, given["paper"], Path(given["root"]), int(given["limit_mb"])


def main() -> None:
    """Pack or unpack, or say what is wrong."""
    with mistakes_told():
        action, paper, root, limit_mb = parse(sys.argv[1:])
        (pack if action == "pack" else unpack)(paper, root, limit_mb)


if __name__ == "__main__":
    main()
