"""Reads a `.wandb` file, W&B's own record of an offline run: a leveldb log of protobuf records.

A header of 7 bytes, then blocks of 32 KiB. A chunk is a header of 7 bytes (checksum 4, length 2, kind 1) and its data;
kinds 1 to 4 are a whole record, its first, a middle and its last part. Fewer than 7 bytes at a block's end are padding.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
WHOLE, LAST = 1, 4


@dataclass
class Recorded:
    """What W&B keeps of one run."""

    id: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """Rows as logged, without W&B's own keys."""
    exit_code: int | None = None


def raw_records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not a .wandb file"
    position, parts = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + HEADER])
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""


def read(path: Path) -> Recorded:
    """The run in a `.wandb` file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found = Recorded()
    for raw in raw_records(path.read_bytes()):
        record = Record()
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.project, found.name = run.run_id, run.project, run.display_name
            found.group, found.job_type, found.tags = run.run_group, run.job_type, list(run.tags)
            found.config |= _items(run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "history":
            row = _items(record.history.item)
            found.history.append({key: value for key, value in row.items() if not key.startswith("_")})
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    found.config.pop("_wandb", None)
    return found


def only(folder: Path) -> Recorded:
    """The run in the only `.wandb` file below `folder`, once W&B has written all of it."""
    import wandb

    wandb.teardown()  # `finish` alone does not wait for the file
    (path,) = folder.rglob("run-*.wandb")
    return read(path)


def file_of(folder: Path, row: dict[str, Any], key: str) -> Path:
    """The file below `folder` that a row of the history names at `key`: an image, a video, a table."""
    (run,) = (found.parent for found in folder.rglob("run-*.wandb"))
    return run / "files" / row[f"{key}/path"]


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
