"""What tests of checkpoints write, harm and compare."""

from pathlib import Path
from typing import Any

import torch

from common.run import checkpoint, seeding
from common.run.checkpoint import Shards


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def two(folder: Path) -> Path:
    """Checkpoints of steps 1 and 2; the folder of the second."""
    paths = [checkpoint.save(folder, step, objects_of(step), run_of(step), previous=None) for step in (1, 2)]
    return paths[1]


def objects_of(step: int) -> dict[str, Any]:
    clients = {"a": {"moment": torch.ones(2) * step}, "b": {"rounds": step}}
    model = {"weight": torch.full((2, 3), float(step)), "pair": (1, 2.5), "flag": {0: None}, "far": float("inf")}
    return {"model": model, "clients": Shards(clients, clients.__getitem__), "rng": seeding.rng_state()}


def run_of(step: int) -> dict[str, Any]:
    return {"best": {"step": 1, "score": 0.5}, "ended": False, "seconds": 1.5, "records": step, "device": "cpu"}


class Holder:
    def __init__(self) -> None:
        self.state: Any = None

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, found: Any) -> None:
        self.state = dict(found)
