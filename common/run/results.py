"""The end of a run: `predictions.jsonl` (its items), then `results.json`, then the FINISHED mark."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import jsontext
from common.errors import UserError
from common.fields import HASHED, IF_SET, counts, fields_along
from common.run.files import write_atomic, write_json_lines
from common.run.schema import flat, plain

DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a damaged file of JSON raises where it is read."""
SCHEMA = 2
"""Of `results.json` and `predictions.jsonl`; 2: items with scores and slices."""
MEASURED = ("gradient_cosine", "metasmoothness")
"""Fields that only some runs have; the others leave them out of the file."""
RESULTS, PREDICTIONS, SETS, FINISHED = "results.json", "predictions.jsonl", "sets.json", "FINISHED"


@dataclass(frozen=True)
class Interval:
    """A value between `low` and `high` from `count` items."""

    value: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Selection:
    """Which dev metric selects a run's model; a paper names its own once."""

    metric: str = "accuracy"
    higher_is_better: bool = True

    def better(self, score: float, than: float) -> bool:
        """Does `score` beat the other?"""
        return score > than if self.higher_is_better else score < than

    def headline(self, test: Mapping[str, Interval]) -> float:
        """The metric's test value; of a run with rows of its own for it (shortcut rules), the best row's.

        Raises:
            ValueError: there is neither.
        """
        if self.metric in test:
            return test[self.metric].value
        own = [got.value for name, got in test.items() if name.startswith(f"{self.metric}_") and "@" not in name]
        if not own:
            raise ValueError(f"no {self.metric} among the test metrics {', '.join(sorted(test))}")
        return max(own) if self.higher_is_better else min(own)


ACCURACY = Selection()


@dataclass(frozen=True)
class RunIdentity:
    """What a run is a run of: the words that folders, tables and W&B share."""

    paper: str
    experiment: str
    method: str
    scale: str
    seed: int


@dataclass(frozen=True)
class Results:
    """`results.json`, field by field. `test` maps a metric's name to its interval."""

    paper: str
    experiment: str
    method: str
    scale: str
    seed: int
    config_hash: str
    revision: str
    dirty: bool | None
    hardware: dict[str, Any]
    wall_seconds: float
    peak_memory_bytes: int
    test: dict[str, Interval]
    per_item: str = PREDICTIONS
    gradient_cosine: float | None = None
    """Of the outer gradient of the first problems to the same in float64, before training
    (`common.engine.conditioning`); None: not measured, as in runs without inner steps and in older ones."""
    metasmoothness: float | None = None
    """Of that gradient to the one an outer step away."""
    schema: int = SCHEMA


def in_words(test: Mapping[str, Interval]) -> str:
    """The first few metrics that are not of a part of the items, with their intervals."""
    whole = [(name, got) for name, got in test.items() if "@" not in name]
    return ", ".join(f"{name} {got.value:.4g} ({got.low:.4g} to {got.high:.4g})" for name, got in whole[:4])


def of_run(
    identity: RunIdentity,
    config_hash: str,
    environment: Mapping[str, Any],
    device: str,
    wall_seconds: float,
    peak_memory_bytes: int,
    test: Mapping[str, Interval],
    gradient: Mapping[str, float | None] | None = None,
) -> Results:
    """The results of a run that computed on `device`; `environment` is the content of its environment.json, `gradient`
    of its gradient.json.
    """
    return Results(
        **dataclasses.asdict(identity),
        config_hash=config_hash,
        revision=environment["revision"],
        dirty=environment["dirty"],
        hardware={**environment["hardware"], "device": device},
        wall_seconds=round(wall_seconds, 3),
        peak_memory_bytes=peak_memory_bytes,
        test=dict(test),
        gradient_cosine=(gradient or {}).get("gradient_cosine"),
        metasmoothness=(gradient or {}).get("metasmoothness"),
    )


class OtherVersion(UserError):
    """Results of a finished run that another version of this code wrote."""


def config_hash(config: Mapping[str, Any], schema: type) -> str:
    """Hash of every key that can change a number, whatever the order of keys."""
    text = json.dumps(hashed_keys(config, schema), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_hash(folder: Path, config: Mapping[str, Any], schema: type, found: Results) -> None:
    """See that what `found` says of the run in `folder` was made with `config`, as the hash in it tells.

    Raises:
        UserError: it was not.
    """
    if (own := config_hash(config, schema)) != found.config_hash:
        raise UserError(
            f"{folder}: its settings (hash {own}) are not those that its results were made with ({found.config_hash}); "
            "put the file of settings back, or delete the folder and run again"
        )


def hashed_keys(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """Dotted key -> value of the keys that count.

    Args:
        config: a configuration as plain data, maybe of an earlier version: keys that `schema` lacks count.
        schema: its dataclass, whose fields say what does not count (`common.fields`).
    """
    leaves = flat(dict(config)).items()
    return {key: value for key, value in leaves if counts(key, schema) and not _unset(key, value, schema)}


def _unset(key: str, value: Any, schema: type) -> bool:
    """Is it one that counts only when set, with its default?"""
    for own, field in fields_along(key, schema):
        if field.metadata.get(HASHED) == IF_SET:
            factory = field.default_factory
            default = plain(field.default if factory is dataclasses.MISSING else factory())
            return bool(flat({own: default}).get(key, dataclasses.MISSING) == value)
    return False


def write(folder: Path, results: Results, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Write the per-item predictions, the results and last the mark that later starts skip the run by.

    Raises:
        UserError: the disk is full or the folder not writable; the run stays unfinished and can be continued.
    """
    try:
        write_json_lines(folder / PREDICTIONS, map(dict, predictions))
        values = dataclasses.asdict(results)
        measured = {key: value for key, value in values.items() if value is not None or key not in MEASURED}
        write_atomic(folder / RESULTS, json.dumps(measured, indent=2) + "\n")
        write_atomic(folder / FINISHED, results.config_hash + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write the results into {folder}: {error.strerror or error}; free space there, "
            "then run the same command again and it continues"
        ) from error


def finished_hash(folder: Path) -> str | None:
    """The config hash of a finished run; None for any other folder, and where there is a mark and no results to it.

    Results of another version are results: their run is finished, and `read` says who reads them.
    """
    mark = folder / FINISHED
    try:
        digest = mark.read_text(encoding="utf-8").strip()
        values = jsontext.mapping((folder / RESULTS).read_bytes())
        if values["schema"] == SCHEMA:
            values = {"config_hash": typed(values).config_hash}
    except (OSError, *DAMAGED):
        return None
    return digest if values.get("config_hash", digest) == digest else None


def read(folder: Path) -> Results:
    """Read and check `results.json`.

    Raises:
        UserError: the run is not finished, or the file is not one of ours.
    """
    path, mark = folder / RESULTS, folder / FINISHED
    if not mark.is_file() or not path.is_file():
        raise UserError(f"{folder}: no finished run; run its command again and it continues")
    try:
        values = jsontext.mapping(path.read_bytes())
        if values["schema"] != SCHEMA:
            newer = isinstance(values["schema"], int) and values["schema"] > SCHEMA
            remedy = "update this code" if newer else (
                "delete the folder and run again, or get kept runs back with `python -m scripts.archive unpack`"
            )  # fmt: skip
            raise OtherVersion(f"{path}: results format {values['schema']}, this version reads {SCHEMA}; {remedy}")
        found = typed(values)
        if (digest := mark.read_text(encoding="utf-8").strip()) != found.config_hash:
            raise ValueError(f"{FINISHED} is of {digest or 'nothing'}, the results are of {found.config_hash}")
    except DAMAGED as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not results of this version ({reason}); delete the folder and run again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return found


def typed(values: Mapping[str, Any]) -> Results:
    """The results, each field of its kind.

    Raises:
        TypeError, ValueError: one is missing, unknown, or of another kind.
    """
    test = {metric: Interval(**interval) for metric, interval in dict(values["test"]).items()}
    found = Results(**{**values, "test": test})
    fields = [(name, getattr(found, name), kind) for name, kind in typing.get_type_hints(Results).items()]
    fields += [(f"test.{name}.{key}", value, float) for name, each in test.items() for key, value in vars(each).items()]
    for name, value, kind in fields:
        several = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        kinds = {typing.get_origin(each) or each for each in several}
        if type(value) not in (kinds | {int} if float in kinds else kinds):
            raise TypeError(f"{name} is {value!r}")
    return found
