"""Finished runs in one file of the repository, so that tables and reports can be made again without running anything.

    python -m scripts.archive pack paper=reckoning                 runs -> docs/results/reckoning.runs.tar.xz
    python -m scripts.archive unpack paper=reckoning               and back, for tables, reports and sweeps to find
    python -m scripts.archive pack paper=reckoning root=elsewhere  runs in another folder

A run is kept with its settings, results, items, metrics and learned rates; weights, checkpoints, logs and media stay
behind. Packing adds to what the archive holds: of two runs with the same settings, or in folders of the same name, the
one begun later is kept. Where a run was made (folders, host, W&B account) does not enter; a run whose settings need an
absolute path is left out and named. Unpacking changes no folder that exists and skips runs that are there already.
"""

import argparse
import getpass
import io
import json
import os
import re
import shlex
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from common import yamltext
from common.errors import UserError
from common.fields import counts
from common.run import rate_record, results
from common.run.files import temporary_beside, write_atomic
from common.run.finished import finished_below
from common.run.folder import CONFIG, ENVIRONMENT, METRICS
from common.run.schema import TrackerConfig, flat, plain, schema_of
from common.tables.runs import Run, command_of, read_runs
from scripts.report.cost import CURVE
from scripts.tables.published_tables import USUAL, every_paper
from scripts.words import mistakes_told, values_of

ACTIONS = ("pack", "unpack")
KEYS = ("paper", "root")
FOLDER = Path("docs/results")
NEEDED = (CONFIG, ENVIRONMENT, results.RESULTS, results.PREDICTIONS, results.FINISHED)
FILES = (*NEEDED, results.SETS, METRICS, rate_record.RATES, CURVE)
ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/])\S*$|(^|[\s=,:\[{\"'])(/|~/)[\w.@-]+/|\b[A-Za-z]:\\")
"""A string that is an absolute path, or holds one of two parts at least: `/no_think` in a text is none."""
CANONICAL: Mapping[str, str | None] = {"loop.root": str(USUAL), "root": None, "cache": f"{USUAL}/data", "export": None}
"""Dotted key, else its last part -> what stands in place of a place of this machine."""


@dataclass(frozen=True)
class Packed:
    """A run as the archive holds it."""

    place: str
    """<paper>/<experiment>/<name of the folder>."""
    files: Mapping[str, bytes]
    """Name -> content."""

    @property
    def digest(self) -> str:
        """The hash of its configuration."""
        return self.files[results.FINISHED].decode().strip()

    @property
    def started(self) -> str:
        """When it was begun, ISO in UTC; empty where that was not recorded."""
        return str(json.loads(self.files[ENVIRONMENT]).get("started", ""))


def archive_of(paper: str) -> Path:
    """Where the runs of a paper are kept."""
    return FOLDER / f"{paper}.runs.tar.xz"


def pack(paper: str, root: Path) -> Path:
    """Add the finished runs below `root` to the paper's archive and return its path.

    Raises:
        UserError: there is no run, one cannot be read, or the place cannot be written to.
    """
    path = archive_of(paper)
    kept = list(read(path)) if path.is_file() else []
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
    try:
        write_atomic(path, written(merged))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); free space there") from error
    before = {run.digest: run.files for run in kept}
    added = sum(before.get(run.digest) != run.files for run in merged)
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    sys.stdout.write(f"{path}: {len(merged)} runs, {added} of them new from {root}; {size}\n")
    for line in dropped:
        sys.stdout.write(f"replaced: {line}\n")
    for line in left_out:
        sys.stderr.write(f"left out: {line}\n")
    return path


def unpack(paper: str, root: Path) -> list[Path]:
    """Put the runs of the paper's archive below `root`; returns the folders made.

    Raises:
        UserError: no archive, one that is not ours, or a place that cannot be written to.
    """
    path = archive_of(paper)
    if not path.is_file():
        raise UserError(f"paper={paper}: there is no {path}; run this in the repository's folder, or pack one first")
    there, runs = finished_below(root), list(read(path))
    made: list[Path] = []
    for run in runs:
        folder = root / run.place
        if run.digest in there:
            continue
        if folder.exists():
            sys.stderr.write(f"left as it is: {folder} holds another run; move it away to unpack this one\n")
            continue
        temporary = temporary_beside(folder)
        try:
            for name, content in run.files.items():
                write_atomic(temporary / name, content)
            os.rename(temporary, folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error}); free space there") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        made.append(folder)
    sys.stdout.write(f"{root}: {len(made)} of {len(runs)} runs unpacked from {path}\n")
    return made


def packed_of(run: Run) -> Packed:
    """A finished run without what tells where it was made."""
    schema = schema_of(run.results.paper, run.config)
    settings = plain_config(run.config, schema)
    environment = json.loads((run.folder / ENVIRONMENT).read_bytes())
    environment |= {"command": plain_command(command_of(run.folder), schema)}
    found = json.loads((run.folder / results.RESULTS).read_bytes())
    for each in (environment, found):
        each["hardware"] = {key: value for key, value in (each.get("hardware") or {}).items() if key != "host"}
    files = {name: (run.folder / name).read_bytes() for name in FILES if (run.folder / name).is_file()}
    files[CONFIG] = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()
    files[ENVIRONMENT] = (json.dumps(environment, indent=2) + "\n").encode()
    files[results.RESULTS] = (json.dumps(found, indent=2) + "\n").encode()
    place = PurePosixPath(run.results.paper, run.results.experiment, run.folder.name)
    return Packed(str(place), files)


def plain_config(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """The configuration with the usual folders and no account; its hash stays the same."""

    def kept(value: Any, key: str) -> Any:
        if key == "tracker":
            return plain(TrackerConfig())
        if isinstance(value, dict) and value:
            return {name: kept(each, f"{key}.{name}" if key else str(name)) for name, each in value.items()}
        name = key if key in CANONICAL else key.rpartition(".")[2]
        return CANONICAL[name] if value is not None and name in CANONICAL and not counts(key, schema) else value

    return dict(kept(dict(config), ""))


def plain_command(command: str, schema: type) -> str:
    """The command without words that cannot change a number, such as folders."""
    words = shlex.split(command)
    own = [word for word in words if not _key(word).startswith("hydra.")]
    changing = [word for word in own if "=" not in word or counts(_key(word), schema)]
    return shlex.join(word for word in changing if "=" in word or not ABSOLUTE.match(word))


def unfit(packed: Packed, run: Run) -> str:
    """Why a run cannot be kept: what it still says of the place it was made at; empty: nothing."""
    texts = {
        **{f"{CONFIG}: {key}": value for key, value in flat(yamltext.load(packed.files[CONFIG], CONFIG)).items()},
        **{f"{ENVIRONMENT}: {key}": value for key, value in flat(json.loads(packed.files[ENVIRONMENT])).items()},
        **{
            f"{results.RESULTS}: {key}": value for key, value in flat(json.loads(packed.files[results.RESULTS])).items()
        },
        "its folder": run.folder.name,
    }
    names = {str(run.results.hardware.get("host") or ""), socket.gethostname(), _user()} - {""}
    word = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, sorted(names)))})(?![\w-])")
    for where, value in texts.items():
        for text in _strings(value):
            if ABSOLUTE.search(text):
                return f"{where} is {text!r}, an absolute path; give a relative one or a name and run again"
            if word.search(text):
                return f"{where} is {text!r}, which names a host or a user; run again without it"
    return ""


def newest(runs: Sequence[Packed]) -> tuple[list[Packed], list[str]]:
    """Of runs with the same hash or the same place the one begun last, by place; and a line for each that differs from
    the run in its stead. Of runs begun together the last one of `runs` stays.
    """
    found: dict[str, Packed] = {}
    places: dict[str, str] = {}
    dropped = []
    for run in sorted(runs, key=lambda each: each.started):
        for old in {run.digest, places.get(run.place, run.digest)} & set(found):
            before = found.pop(old)
            del places[before.place]
            if before.files != run.files:
                dropped.append(f"{before.place}, begun {before.started or 'some time'}, by one begun {run.started}")
        found[run.digest] = run
        places[run.place] = run.digest
    return sorted(found.values(), key=lambda each: each.place), dropped


def written(runs: Iterable[Packed]) -> bytes:
    """The archive: the same bytes for the same runs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT, preset=9) as tar:
        for run in runs:
            for name, content in sorted(run.files.items()):
                member = tarfile.TarInfo(f"{run.place}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def read(path: Path) -> Iterator[Packed]:
    """The runs of an archive, by place; nothing but the files of runs is taken from it, whatever else it holds.

    Raises:
        UserError: it is damaged, or not one of ours.
    """
    found: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, mode="r:xz") as tar:
            for member in tar:
                *parts, name = member.name.split("/")
                content = tar.extractfile(member) if member.isfile() else None
                if content is None or name not in FILES or len(parts) != 3 or {"", ".", ".."} & set(parts):
                    raise UserError(f"{path}: {member.name} is no file of a run; restore the archive or delete it")
                found.setdefault("/".join(parts), {})[name] = content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or delete it") from error
    for place, files in sorted(found.items()):
        if lacking := [name for name in NEEDED if name not in files]:
            raise UserError(f"{path}: {place} lacks {', '.join(lacking)}; restore the archive or delete it")
        yield Packed(place, files)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        return ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _strings(each)


def parse(words: Sequence[str]) -> tuple[str, str, Path]:
    """The action, the paper and the folder of the runs.

    Raises:
        UserError: an unknown action, key or paper.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.archive", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=ACTIONS)
    text = "paper=<one>, root=<folder of the runs, default runs>"
    parser.add_argument("words", nargs="*", metavar="key=value", help=text)
    options = parser.parse_args(words)
    given = {"root": str(USUAL), "paper": "", **values_of(options.words, KEYS)}
    if given["paper"] not in (papers := every_paper()):
        raise UserError(f"paper={given['paper']}: give one of {', '.join(papers)}")
    return options.action, given["paper"], Path(given["root"])


def main() -> None:
    """Pack or unpack, or say what is wrong."""
    with mistakes_told():
        action, paper, root = parse(sys.argv[1:])
        (pack if action == "pack" else unpack)(paper, root)


if __name__ == "__main__":
    main()
