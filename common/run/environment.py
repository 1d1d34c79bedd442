"""What a run ran on: versions, revision of the code, hardware, command line. Written to `environment.json`, where
`starts` lists when and by which code it was started and continued; all else is of the last start."""

import importlib.util
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from common.engine.cuda.sizes import host_memory_bytes
from common.engine.settings import Kernels
from common.errors import UserError
from common.run.entry import local_jobs
from common.run.local import claim_gpu
from common.run.schema import Device, RuntimeConfig

LIBRARIES = (
    "torch", "numpy", "scipy", "scikit-learn", "transformers", "tokenizers", "peft", "diffusers", "datasets",
    "accelerate", "safetensors", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip

START = ("started", "revision", "dirty", "python", "libraries")
"""What is kept of every start."""


def describe() -> dict[str, Any]:
    """Everything for `environment.json`, as plain data."""
    commit, dirty = revision()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
        "revision": commit,
        "dirty": dirty,
        "hardware": hardware(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def with_starts(found: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`found` of this start, and in `starts` the revision and versions of all, the earlier ones first."""
    before = earlier.get("starts") or ([earlier] if earlier else [])
    return {**found, "starts": [{key: start.get(key) for key in START} for start in (*before, found)]}


def hardware() -> dict[str, Any]:
    """Host, processor, memory and CUDA devices."""
    devices = range(torch.cuda.device_count())
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": host_memory_bytes(),
        "cuda": [torch.cuda.get_device_name(index) for index in devices],
        "cuda_version": torch.version.cuda,
    }


def revision() -> tuple[str, bool | None]:
    """Commit of this code and whether tracked files differ from it; ("unknown", None) outside a checkout of it."""
    here = Path(__file__)
    # an installed copy may lie inside somebody else's repository
    if _git("ls-files", "--error-unmatch", here.name) is None or (commit := _git("rev-parse", "HEAD")) is None:
        return "unknown", None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def refuse_several_processes() -> None:
    """Stop where a launcher started one run as several processes: they would do the same work in the same folder.

    Raises:
        UserError: this is one of several tasks of a SLURM step.
    """
    number = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if number != "1":
        raise UserError(
            f"{number} processes were started for one run, which is one process: use hydra/launcher=slurm_gpu, one GPU "
            "a cell, or set hydra.launcher.tasks_per_node=1 and hydra.launcher.nodes=1"
        )


def pick_device(device: Device) -> torch.device:
    """The device asked for; in a sweep on this machine it is one GPU that the process then has for itself.

    Raises:
        UserError: CUDA is asked for and torch sees none.
    """
    if device is not Device.cpu and (jobs := local_jobs()) is not None:
        claim_gpu(jobs)
    there = torch.cuda.is_available()
    if device is Device.cuda and not there:
        raise UserError(
            f"runtime.device=cuda, but torch {torch.__version__} sees no CUDA device; use runtime=cpu, or install "
            "a CUDA build of torch and check nvidia-smi"
        )
    return torch.device("cuda" if there and device is not Device.cpu else "cpu")


def device_for(runtime: RuntimeConfig) -> torch.device:
    """The device of a run, on which all that `runtime` asks for is there.

    Raises:
        UserError: CUDA, or what needs it, is asked for and is not there.
    """
    device = pick_device(runtime.device)
    if device.type != "cuda" and (runtime.capture or runtime.kernels is Kernels.fused):
        key, value, other = ("capture", "true", "false") if runtime.capture else ("kernels", "fused", "auto")
        raise UserError(
            f"runtime.{key}={value} needs a CUDA device, and this run is on the {device}; use runtime=gpu on a "
            f"machine that has one, or runtime.{key}={other}"
        )
    if runtime.kernels is Kernels.fused and importlib.util.find_spec("triton") is None:
        raise UserError(
            "runtime.kernels=fused: its kernels are Triton's, which is not installed (CUDA builds of torch for Linux "
            "bring it); install one, or use runtime.kernels=auto"
        )
    return device
