"""A sweep on one machine: how many cells at once, and which GPU each process has.

Each process of the sweep holds a lock on one slot of a GPU until it ends, however it ends, so two cells share a GPU
only where more processes than GPUs were asked for (`INNERLOOP_JOBS`). That holds between sweeps as well.
Nothing here needs torch: the choice must be made before CUDA is first used.
"""

import fcntl
import itertools
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from omegaconf import OmegaConf

from common.errors import UserError

JOBS = "INNERLOOP_JOBS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
log = logging.getLogger(__name__)
_held: list[IO[str]] = []


def processes(device: str) -> int:
    """How many cells run at once: $INNERLOOP_JOBS, else one a GPU, else -1 for one a core.

    Args:
        device: runtime.device; "cpu" counts cores even where there are GPUs.

    Raises:
        UserError: $INNERLOOP_JOBS is neither -1 nor a number above 0.
    """
    if given := os.environ.get(JOBS):
        if not re.fullmatch(r"-1|[1-9]\d*", given):
            raise UserError(f"{JOBS}={given}: use a number above 0, or -1 for one process a core")
        return int(given)
    gpus = [] if str(device) == "cpu" else visible_gpus()
    return len(gpus) or -1


OmegaConf.register_new_resolver("local_processes", processes, replace=True)


def cores() -> int:
    """Cores that this process may use, by affinity and container limits."""
    from joblib import cpu_count

    return int(cpu_count())


def visible_gpus() -> list[str]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES takes them: its own, or all of nvidia-smi's."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        return list(itertools.takewhile(re.compile(r"\d+|(GPU|MIG)-.+").fullmatch, names))  # CUDA stops there as well
    try:
        shown = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, encoding="utf-8", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index in range(len(re.findall(r"^GPU ", shown.stdout, re.MULTILINE)))]


def claim_gpu(jobs: int) -> str | None:
    """Let this process see one GPU only, and keep it from others until the process ends; waits for one to be free.

    Args:
        jobs: processes of the sweep, -1 for one a core; where there are more of them than GPUs, they share a GPU in
            equal parts.

    Returns:
        The GPU's name, None where there is none.

    Raises:
        UserError: no lock can be had.
    """
    gpus = visible_gpus()
    if _held:
        return gpus[0]
    if not gpus:
        return None
    jobs = jobs if jobs > 0 else os.cpu_count() or 1
    slots = [(share, gpu) for share in range(-(-jobs // len(gpus))) for gpu in gpus]
    if (gpu := _first_free(slots)) is None:
        log.warning("waiting for a GPU: other sweeps hold all of %s", ", ".join(gpus))
    while gpu is None:
        time.sleep(2)
        gpu = _first_free(slots)
    os.environ[VISIBLE] = gpu
    log.info("%s=%s", VISIBLE, gpu)
    return gpu


def _first_free(slots: Sequence[tuple[int, str]]) -> str | None:
    """Lock the first slot that nobody holds; returns its GPU.

    Raises:
        UserError: there is no place for locks.
    """
    folder = Path(tempfile.gettempdir()) / f"innerloop-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for share, gpu in slots:
            with ExitStack() as stack:
                file = stack.enter_context((folder / f"{gpu}.{share}").open("a", encoding="utf-8"))
                with suppress(BlockingIOError, PermissionError):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    stack.pop_all()
                    _held.append(file)
                    return gpu
    except OSError as error:
        raise UserError(
            f"{folder}: no lock can be had there ({error.strerror}), so nobody would notice two runs on one GPU; set "
            "TMPDIR to a folder of yours on a file system with locks"
        ) from error
    return None
