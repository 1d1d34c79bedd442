"""The file that runs are kept in: what of a run it holds, and how it is written and read."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import jsontext, yamltext
from common.data.packed import DAMAGE, MEGABYTE, Bounds, opened
from common.errors import UserError
from common.run import rate_record, results
from common.run.folder import CONFIG, ENVIRONMENT, METRICS, TABLE
from common.run.items import Item
from common.run.schema import schema_of
from scripts.report.cost import CURVE

NEEDED = (CONFIG, ENVIRONMENT, results.RESULTS, results.PREDICTIONS, results.FINISHED)
FILES = (*NEEDED, results.SETS, METRICS, TABLE, rate_record.RATES, CURVE)
LARGEST_MB, MOST_RUNS = 512, 20_000
"""What an archive may unpack to, and how many runs it may hold."""
MEMBER_MB = 64
ENDINGS = {".json": jsontext.parse, ".yaml": yamltext.parse}


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
        return str(jsontext.mapping(self.files[ENVIRONMENT]).get("started", ""))

    def values(self) -> Iterator[tuple[str, Any]]:
        """What its files hold, as plain data: the file's name, with the number of the line where it has lines.

        Raises:
            ValueError: one is damaged; names it.
        """
        for name, content in self.files.items():
            kind = Path(name).suffix
            try:
                text = content.decode()
                if kind in ENDINGS:
                    yield name, ENDINGS[kind](text)
                elif kind == ".jsonl":
                    for number, line in enumerate(text.splitlines(), start=1):
                        yield f"{name}:{number}", jsontext.parse(line)
                else:
                    yield name, text
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error


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


def read(path: Path, paper: str, largest_mb: int = LARGEST_MB) -> list[Packed]:
    """The runs of a paper's archive, by place; nothing but the files of runs is taken from it, and of those nothing
    that its settings do not stand for.

    Args:
        path: the archive.
        paper: whose runs it must hold.
        largest_mb: how much it may hold unpacked, in megabytes.

    Raises:
        UserError: it is damaged, not one of ours, larger than it may be, or a run in it does not fit its settings.
    """
    found: dict[str, dict[str, bytes]] = {}
    try:
        with opened(path, Bounds(file_mb=largest_mb), remedy="give limit_mb=<more>") as packed:
            with tarfile.open(fileobj=packed, mode="r|", encoding="utf-8") as tar:
                for member in tar:
                    *parts, name = member.name.split("/")
                    if not member.isfile() or name not in FILES or len(parts) != 3 or {"", ".", ".."} & set(parts):
                        raise _refusal(path, f"{member.name} is no file of a run")
                    if member.size > MEMBER_MB * MEGABYTE or len(found) > MOST_RUNS:
                        raise _refusal(path, f"{member.name} is one too many, or of more than {MEMBER_MB} MB")
                    if member.issparse():  # it holds more than was unpacked, so no bound would stop it
                        raise _refusal(path, f"{member.name} is a sparse file")
                    files = found.setdefault("/".join(parts), {})
                    if name in files:
                        raise _refusal(path, f"{member.name} is there twice")
                    content = tar.extractfile(member)
                    assert content is not None, "a file has content"
                    files[name] = content.read()
    except (tarfile.TarError, *DAMAGE, OSError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or delete it") from error
    if not found:
        raise _refusal(path, "holds no run")
    runs = [Packed(place, files) for place, files in sorted(found.items())]
    for run in runs:
        try:
            check(run, paper)
        except ValueError as error:
            raise _refusal(path, f"{run.place}: {error}") from error
    return runs


def check(run: Packed, paper: str) -> None:
    """Compare a run's files with each other.

    Raises:
        ValueError: one is missing or damaged, or they are not of one run.
    """
    try:
        _check(run, paper)
    except results.DAMAGED as error:
        raise ValueError(str(error) if isinstance(error, ValueError) else f"damaged ({error!r})") from error


def _check(run: Packed, paper: str) -> None:
    if lacking := [name for name in NEEDED if name not in run.files]:
        raise ValueError(f"{', '.join(lacking)} is missing")
    values = dict(run.values())
    settings, found = values[CONFIG], values[results.RESULTS]
    own, experiment, _ = run.place.split("/")
    if (own, found["paper"], found["experiment"]) != (paper, paper, experiment):
        raise ValueError(f"its results are of {found['paper']}/{found['experiment']}, and these are runs of {paper}")
    if found["schema"] != results.SCHEMA:
        raise ValueError(f"results format {found['schema']}, this version reads {results.SCHEMA}")
    counted = results.config_hash(settings, schema_of(paper, settings))
    if {run.digest, found["config_hash"]} != {counted}:
        raise ValueError(f"its settings have the hash {counted}, and it is marked {run.digest}")
    results.typed(found)
    for name, value in values.items():
        if Path(name.partition(":")[0]).suffix in (".json", ".jsonl") and not isinstance(value, dict):
            raise ValueError(f"{name} is no object")
        if name.startswith(results.PREDICTIONS):
            Item.of(value)


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: {reason}; restore the archive or delete it")
