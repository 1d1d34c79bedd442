"""Seeds, deterministic mode, and the state of every random number generator as plain data."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from common.engine.cuda import using
from common.run.schema import RuntimeConfig

CUBLAS_WORKSPACE = ":4096:8"


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, those of all CUDA devices included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_deterministic(on: bool) -> None:
    """Make torch choose reproducible kernels and fail where there are none.

    cuBLAS reads its workspace setting when it is first used, so this comes before any work on the device. Torch's
    filling of new tensors with NaN stays off: it costs a small model 5 to 8 % of a step and changes no number.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(on)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def applied(runtime: RuntimeConfig, seed: int) -> Iterator[None]:
    """All generators seeded; the kernels and threads of `runtime` inside the block, those of before after it."""
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    set_deterministic(runtime.deterministic)
    torch.set_num_threads(runtime.threads or threads)
    seed_everything(seed)
    try:
        with using(runtime.kernels):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def rng_state() -> dict[str, Any]:
    """State of all generators: tensors, numbers, lists and tuples only, ready for `common.run.checkpoint`."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "python": random.getstate(),
        "numpy": [kind, keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put all generators back; CUDA generators only on a machine with as many devices as there were."""
    random.setstate(_tuples(state["python"]))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def _tuples(value: Any) -> Any:
    """Lists to tuples at every level: `random.setstate` takes nothing else."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
