"""Checkpoints: folders of safetensors and JSON that are whole or not there; nothing is ever unpickled.

checkpoints/step-000400/
    state.json              step, run state, the structure of every object, sizes and hashes of the tensor files
    <object>.safetensors    the tensors of one object; a model's file holds its parameters under their own names
"""

import base64
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from common.errors import UserError
from common.run.files import remove_temporaries, sync_folder, temporary_beside, write_synced

SCHEMA = 1
STATE = "state.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What was read: `objects` as their `state_dict()`s (tensors on the CPU), `run` as given to `save`."""

    path: Path
    step: int
    objects: dict[str, Any]
    run: dict[str, Any]


def save(
    folder: Path,
    step: int,
    objects: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    keep: int = 2,
    best: int | None = None,
) -> Path:
    """Write `folder/step-NNNNNN` and drop older ones beyond the newest `keep` and the step `best`.

    Args:
        folder: the run's checkpoint folder; made if need be.
        step: outer steps done.
        objects: name -> state dict: any nesting of dicts, lists, tuples, tensors, numbers, strings, bytes and None.
        run: anything JSON can hold.
        keep: number of newest checkpoints that stay.
        best: step of the checkpoint that stays whatever its age.

    Raises:
        UserError: the disk is full or not writable; earlier checkpoints are intact and nothing temporary is left.
    """
    target = folder / name_of(step)
    temporary = temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
        _write(temporary, step, objects, run)
        if target.exists():  # unreadable, or left by a run that went on from an earlier checkpoint
            shutil.rmtree(target)
        os.rename(temporary, target)
        sync_folder(folder)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, step, keep, best)
    return target


def name_of(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:06d}"


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, newest first; complete or not."""
    found = [re.fullmatch(r"step-(\d{6,})", path.name) for path in folder.glob("step-*")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; broken ones are passed over with a warning."""
    for step in steps(folder):
        try:
            return load(folder / name_of(step))
        except UserError as error:
            log.warning("%s; trying the one before", error)
    return None


def load(path: Path) -> Checkpoint:
    """Read one checkpoint folder.

    Raises:
        UserError: it is incomplete, was altered, or comes from a later version.
    """
    try:
        state = json.loads((path / STATE).read_text())
        if state["schema"] != SCHEMA:
            raise UserError(f"{path}: checkpoint format {state['schema']}, this code reads {SCHEMA}; update it")
        objects = {}
        for name, entry in state["objects"].items():
            data = (path / f"{name}.safetensors").read_bytes()
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise UserError(f"{path / name}.safetensors is damaged (its hash differs); use an earlier checkpoint")
            objects[name] = _decode(entry["structure"], parse_tensors(data))
        return Checkpoint(path, state["step"], objects, state["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: unreadable checkpoint ({error!r}); use an earlier one") from error


def _write(folder: Path, step: int, objects: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    entries = {}
    for name, value in objects.items():
        tensors: dict[str, Tensor] = {}
        structure = _encode(value, (), tensors, {})
        # to bytes first: a full disk is then a plain OSError and never a half-mapped file
        data = serialise_tensors(tensors)
        write_synced(folder / f"{name}.safetensors", data)
        entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "structure": structure}
    state = {"schema": SCHEMA, "step": step, "run": dict(run), "objects": entries}
    write_synced(folder / STATE, json.dumps(state, allow_nan=False).encode())
    sync_folder(folder)


def _encode(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """`value` as JSON, its tensors moved to `tensors` under their dotted path.

    Tagged objects `{"$kind": ...}` stand for what JSON lacks. Tied tensors are stored once: `seen` finds them again.
    """
    if isinstance(value, Tensor):
        data = value.detach()
        place = (data.data_ptr(), data.dtype, tuple(data.shape), data.stride(), str(data.device))
        if not data.numel() or place not in seen:
            name = ".".join(path) or "value"
            while name in tensors:
                name += "_"
            tensors[name] = data.to("cpu", copy=True).contiguous()
            seen[place] = name
        return {"$tensor": seen[place]}
    if isinstance(value, Mapping):
        pairs = [(key, _encode(entry, (*path, str(key)), tensors, seen)) for key, entry in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": [[_encode(key, path, tensors, seen), entry] for key, entry in pairs]}
    if isinstance(value, (list, tuple)):
        entries = [_encode(entry, (*path, str(index)), tensors, seen) for index, entry in enumerate(value)]
        return entries if isinstance(value, list) else {"$tuple": entries}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{'.'.join(path)} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "state_dict() may give tensors, numbers, strings, bytes, None, and dicts, lists and tuples of them"
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    match next(iter(value), None):
        case "$tensor":
            return tensors[value["$tensor"]]
        case "$dict":
            return {_decode(key, tensors): _decode(entry, tensors) for key, entry in value["$dict"]}
        case "$tuple":
            return tuple(_decode(entry, tensors) for entry in value["$tuple"])
        case "$float":
            return float(value["$float"])
        case "$bytes":
            return base64.b64decode(value["$bytes"])
    return {key: _decode(entry, tensors) for key, entry in value.items()}


def _prune(folder: Path, last: int, keep: int, best: int | None) -> None:
    """Delete what nobody needs: checkpoints beyond the newest `keep` up to `last` but `best`, later ones, which the run
    passed over as damaged, and what killed writers left."""
    remove_temporaries(folder)
    there = steps(folder)
    needed = {best, *[step for step in there if step <= last][:keep]}
    for step in there:
        if step not in needed:
            shutil.rmtree(folder / name_of(step), ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> UserError:
    left = steps(target.parent)
    good = f"the last good checkpoint is {target.parent / name_of(left[0])}" if left else "there is no earlier one"
    remedy = "free space there, or set loop.root to a bigger disk" if error.errno != errno.EACCES else "allow writing"
    return UserError(
        f"cannot write checkpoint {target}: {error.strerror or error}; {good}; {remedy}, "
        "then run the same command again and it continues"
    )
