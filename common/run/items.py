"""Items of a test split, a line each of `predictions.jsonl`, and numbers that only all of them together have."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from common import jsontext
from common.data.textfile import read_json_lines
from common.errors import UserError
from common.run.files import write_atomic
from common.run.results import DAMAGED, PREDICTIONS, SETS

KEPT = 96
"""Runs whose items stay in memory: what is asked of them comes row by row."""
NUMBERS = {int, float}
NAMED = frozenset({"id", "group", "scores", "slices", "further"})


@dataclass(frozen=True)
class Item:
    """What was asked once, and how it came out."""

    id: str
    group: str
    """What it hangs on (a theory, a context, an image): items of one group are not independent."""
    scores: Mapping[str, tuple[float, float]]
    """Metric -> part and whole, which add up over items: [1, 1] for a right answer, [3, 4] for three pieces of four,
    [31.2, 1] for a quality. A metric that does not apply to the item is left out."""
    slices: Mapping[str, str | int] = field(default_factory=dict)
    """Name -> value: `<metric>@<name>_<value>` counts the items with it. A name holds neither `_` nor `@`."""
    further: str = ""
    """The slice that a further pass over the split changed: its items count where that slice chooses and nowhere else.
    Empty: the split as the data set has it."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping of it: what was said, the whole response."""

    def __post_init__(self) -> None:
        for metric, (part, whole) in self.scores.items():
            if not (isfinite(part) and isfinite(whole) and (whole > 0 or whole == part == 0)):
                raise ValueError(
                    f"{metric} of item {self.id} is {part} of {whole}: finite numbers are needed, the whole above 0 or "
                    "both 0; cap a quality that has no end"
                )
            if "@" in metric:
                raise ValueError(f"metric {metric!r} of item {self.id}: a name without @ is needed")
        if strange := NAMED & self.more.keys():
            raise ValueError(f"item {self.id}: {min(strange)!r} is a field of every item and none of its extras")
        for name in self.slices:
            if "_" in name or "@" in name:
                raise ValueError(f"slice {name!r} of item {self.id}: a name without _ and @ is needed")
        if self.further and self.further not in self.slices:
            raise ValueError(f"item {self.id} is of a further pass over {self.further!r}, which is none of its slices")

    def to_json(self) -> dict[str, Any]:
        """The item as a line holds it; true is the number 1."""
        record: dict[str, Any] = {"id": self.id, "group": self.group}
        scores = {metric: [+part, +whole] for metric, (part, whole) in self.scores.items()}
        record |= {"scores": scores, "slices": dict(self.slices)}
        return record | ({"further": self.further} if self.further else {}) | dict(self.more)

    def row(self) -> dict[str, Any]:
        """The item as a row of a table, each score as one number."""
        scores = {metric: part / whole for metric, (part, whole) in self.scores.items() if whole}
        return {"id": self.id, "group": self.group, **scores, **self.slices, **self.more}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Item":
        """The item of a line.

        Raises:
            ValueError: the line lacks something, or has it in another form.
        """
        try:
            own, group, given = record["id"], record["group"], record["scores"]
        except KeyError as error:
            raise ValueError(f"no {error}") from error
        scores = {}
        for metric, pair in given.items():
            if type(pair) is not list or len(pair) != 2 or type(pair[0]) not in NUMBERS or type(pair[1]) not in NUMBERS:
                raise ValueError(f"{metric} is {pair!r}, a part and a whole are needed")
            scores[metric] = (pair[0], pair[1])
        more = {name: value for name, value in record.items() if name not in NAMED}
        return cls(str(own), str(group), scores, record.get("slices", {}), record.get("further", ""), more)

    def counts(self, slice_name: str = "", value: str = "") -> bool:
        """Does a metric of the whole split count it, or one of the items whose slice has the value?"""
        if self.further not in ("", slice_name):
            return False
        return not slice_name or str(self.slices.get(slice_name)) == value


@dataclass(frozen=True)
class OfAll:
    """A number that only all items together have, such as a distance between two distributions."""

    value: float
    without: Mapping[str, float]
    """Group -> the number without the items of that group; of these its error is made."""
    count: float | None = None
    """Of a share: of how many independent items it is one. Its interval is then Wilson's at the least, so that one of
    nothing but wrong answers, which no group moves, has a width."""

    def __post_init__(self) -> None:
        if len(self.without) < 2 or not all(map(isfinite, (self.value, *self.without.values()))):
            raise ValueError(
                f"{len(self.without)} groups: of two and more, all with finite numbers, an error can be made"
            )
        if self.count is not None and not (self.count > 0 and 0 <= self.value <= 1):
            raise ValueError(f"{self.value:.4g} of {self.count:g} items is no share of 1")


def slice_of(metric: str) -> tuple[str, str, str]:
    """(name, slice, value) of a metric: `accuracy@depth_3` is accuracy where depth is 3; without @ two are empty."""
    name, _, chosen = metric.partition("@")
    kind, _, value = chosen.partition("_")
    return name, kind, value


def read_items(folder: Path) -> list[Item]:
    """The items of a finished run, in the order of its test split; none where its numbers are not counted from items.

    Raises:
        UserError: the file is missing, or a line is no item; it is named.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{path}: no such file; delete the folder and run again")
    state = path.stat()
    return list(_read(path, state.st_mtime_ns)) if state.st_size else []


@lru_cache(KEPT)
def _read(path: Path, changed: int) -> tuple[Item, ...]:
    found = []
    for number, record in read_json_lines(path, remedy="run again"):
        try:
            found.append(Item.of(record))
        except DAMAGED as error:
            raise UserError(f"{path}:{number}: not an item ({error}); delete the folder and run again") from error
    return tuple(found)


def write_of_all(folder: Path, found: Mapping[str, OfAll]) -> None:
    """Write `sets.json`: the numbers of a run that are not sums over its items, by metric; before the run is finished.

    Raises:
        OSError: as `write_atomic`.
    """
    said = {m: {key: kept for key, kept in asdict(each).items() if kept is not None} for m, each in found.items()}
    write_atomic(folder / SETS, json.dumps(said, indent=2) + "\n")


def read_of_all(folder: Path) -> dict[str, OfAll]:
    """What `write_of_all` wrote; empty where the run has no such number.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / SETS
    if not path.is_file():
        return {}
    try:
        return {metric: OfAll(**each) for metric, each in jsontext.mapping(path.read_bytes()).items()}
    except DAMAGED as error:
        raise UserError(f"{path}: damaged ({error}); delete the folder and run again") from error


def score_of(items: Iterable[Item], metric: str) -> float:
    """A metric of items: the sum of its parts over the sum of its wholes.

    Raises:
        ValueError: no item has it.
    """
    pairs = [item.scores[metric] for item in items if metric in item.scores]
    if not (whole := sum(pair[1] for pair in pairs)):
        raise ValueError(f"{metric} of no items")
    return sum(pair[0] for pair in pairs) / whole
