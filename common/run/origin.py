"""What a run is made of besides its settings: data and start weights, which must stay, and code, which may change.

Their digests lie in every checkpoint (`made`). A run that is continued with other data or start weights is refused, one
that is continued by other code goes on with a warning.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from common.errors import UserError

FIXED, CODE = "fixed", "code"
"""Entries of `made`."""
SETTINGS = "settings"
"""The hash of a run's own, beside the digests of its data: a checkpoint of another run may have got into its folder."""
WEIGHTS, BASE = "start weights", "base weights"
"""Of a network before its first step, and of the frozen one below an adapter."""
log = logging.getLogger(__name__)


def of_records(records: Iterable[Mapping[str, Any]]) -> str:
    """Digest of a split: the SHA-256 of its records as `common.run.files.write_json_lines` writes them."""
    hashed = hashlib.sha256()
    for record in records:
        hashed.update(f"{json.dumps(record, ensure_ascii=False)}\n".encode())
    return hashed.hexdigest()


def of_weights(state: Mapping[str, Any]) -> str:
    """Digest of the tensors in a `state_dict()`, with their names; none is copied as a whole."""
    from torch import Tensor

    from common.run import tensorfile

    return tensorfile.digest({name: value for name, value in state.items() if isinstance(value, Tensor)})


def of_code(*packages: str) -> str:
    """Digest of the source of packages; those that are not installed are left out."""
    hashed = hashlib.sha256()
    for package in packages:
        try:
            root = Path(str(resources.files(package)))
        except ModuleNotFoundError:
            continue
        for path in sorted(root.rglob("*.py")):
            hashed.update(f"{path.relative_to(root.parent)}\0".encode() + path.read_bytes())
    return hashed.hexdigest()


def compare(folder: Path, step: int, before: Mapping[str, Any], now: Mapping[str, Any], *, weights: bool) -> None:
    """Hold what a checkpoint of `step` was made of against what the run would go on with.

    Args:
        folder: of the run.
        step: of the checkpoint.
        before: `made` in the checkpoint; entries that an earlier version did not write are not compared.
        now: `made` of this process.
        weights: compare start weights, too; another kind of device draws others.

    Raises:
        UserError: settings, data or weights differ.
    """
    known, fixed = before.get(FIXED, {}), now.get(FIXED, {})
    changed = [name for name in fixed if name in known and known[name] != fixed[name]]
    if SETTINGS in changed:
        raise UserError(
            f"{folder}: the checkpoint of step {step} is of a run with other settings; put this run's own checkpoints "
            "back, or delete the folder to start from the beginning"
        )
    if data := [name for name in changed if name not in (WEIGHTS, BASE)]:
        raise UserError(
            f"{folder}: the data have changed since step {step} was saved: {', '.join(data)}; put the old files (or "
            "the code that makes them) back, or begin a run on the new ones with another loop.root"
        )
    if weights and (names := [name for name in changed if name in (WEIGHTS, BASE)]):
        raise UserError(
            f"{folder}: the {' and '.join(names)} are not those that the run began with; put the model's old files "
            "back (model.name), or begin a run on the new ones with another loop.root"
        )
    if told := _code_changes(before.get(CODE, {}), now.get(CODE, {})):
        log.warning("the code has changed since step %d was saved, and numbers may with it: %s", step, "; ".join(told))


def _code_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    told = [
        f"{key} {before[key]} (now {now[key]})"
        for key in ("revision", "python")
        if key in before and before[key] != now[key]
    ]
    if not told and before.get("source", now.get("source")) != now.get("source"):
        told.append("its files")
    libraries = before.get("libraries", now.get("libraries", {}))
    own = now.get("libraries", {})
    differing = [name for name in {**libraries, **own} if libraries.get(name) != own.get(name)]
    return told + [f"{name} {libraries.get(name, 'absent')} (now {own.get(name, 'absent')})" for name in differing]
