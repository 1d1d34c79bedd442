"""A federation of two nodes on generated images, as short as one can be."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra import compose, initialize_config_module
from safetensors.torch import load_file

from common.run.schema import to_typed
from fal.config import TrainConfig
from fal.flower import processes
from fal.train import train  # noqa: F401 -- stores the schema

if TYPE_CHECKING:
    from fal.flower.deployment import Deployment

SHORT = [
    "data=shapes", "partition=iid", "partition.clients=4", "scale=cpu", "method=fat", "model=mlp_64",
    "data.train=240", "data.validation=40", "data.test=40", "federation.local_steps=2", "federation.batch=16",
    "federation.rounds=3", "evaluation.aa_lite=false", "evaluation.sanity=false", "evaluation.steps=4",
]  # fmt: skip


def config(root: Path, *words: str) -> TrainConfig:
    """Of a run below `root`."""
    with initialize_config_module("conf.fal", version_base="1.3"):
        return to_typed(compose("config", [*SHORT, f"loop.root={root}", *words]), TrainConfig)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The server's, of the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step-*"))
    return load_file(newest / "server.safetensors")


def apart(a: Path, b: Path) -> float:
    """Largest difference between the servers of two runs."""
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def until(so: Callable[[], Any], what: str, seconds: float = 300.0) -> None:
    """Wait for an event."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.2)


def kill(deployment: Deployment, name: str) -> None:
    """End a process and what it has started without asking."""
    for process in processes.running(deployment.folder)[name].members:
        process.send_signal(signal.SIGKILL)
    until(lambda: name not in deployment.alive(), f"the end of {name}")


def said(deployment: Deployment, name: str, words: str, times: int = 1) -> Callable[[], bool]:
    """Does the log of a process have these words so often?"""
    log = deployment.folder / f"{name}.log"
    return lambda: log.is_file() and log.read_text(errors="replace").count(words) >= times
