"""Choices that need a look at the work: `inner.unroll=auto`, and whether stacking tasks pays."""

import logging
import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from common.engine.cuda.sizes import host_memory_bytes
from common.engine.derivatives import InnerLoss, plain_gradient
from common.engine.footprint import Footprint
from common.engine.hollow import Hollow
from common.engine.settings import Snapshots, Unroll
from common.engine.weights import Weights

logger = logging.getLogger(__name__)
IDLE = {"cpu": {"product": 4e8, "convolution": 4e7}, "cuda": {"product": 2e10, "convolution": 2e9}}
"""Floating-point operations of a task's gradient, by class, below which it leaves the device idle and stacking pays. On
a CPU measured (common/engine/README.md): beyond, a stack of matrix products falls out of the caches and is slower, and
one of convolutions, which are grouped then, gains nothing (somewhere between 3e7 and 7e7). On CUDA not measured."""
SHARED = 5.0
"""So many times more where tasks share a frozen base, which reads a stack as one batch; measured on a CPU."""
CHUNK = {"cpu": 10, "cuda": 100}
"""Most tasks of one chunk: on a CPU ten are nearly as fast as a hundred, and take no more memory than one by one. On
CUDA not measured."""
SHARE = 0.6
"""Of the device's memory, where no budget is given: the rest is for the outer optimiser, data and fragmentation."""


def stacking_pays(loss: InnerLoss, weights: Weights, part: Any, device: torch.device, *, shared: bool) -> bool:
    """Whether the gradient of one task is so little work that tasks are better adapted at once; counted, not timed.

    `shared`: the fast weights are an adapter on a base that all tasks share.
    """
    work = _work(loss, weights, part)
    pays = _busy(work, device) < (SHARED if shared else 1)
    if not pays:
        total = sum(work.values())
        logger.info("inner.stack=true: problems go one by one, %.1e operations a gradient keep the device busy", total)
    return pays


def chunk_of(loss: InnerLoss, weights: Weights, part: Any, device: torch.device, *, tasks: int, shared: bool) -> int:
    """How many of `tasks` tasks to adapt at once, in chunks of nearly one size; 1 where stacking does not pay."""
    if _busy(_work(loss, weights, part), device) >= (SHARED if shared else 1):
        return 1
    chunks = math.ceil(tasks / CHUNK[device.type])
    return math.ceil(tasks / chunks)


def _work(loss: InnerLoss, weights: Weights, part: Any) -> dict[str, int]:
    """Class of operators -> floating-point operations of one task's gradient, counted without data."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    hollow = pytree.tree_map_only(torch.Tensor, mode.from_tensor, (dict(weights), part))
    with mode, Hollow(mode), FlopCounterMode(display=False) as counter:
        plain_gradient(loss, *hollow)
    work = {"product": 0, "convolution": 0}
    for operator, count in counter.get_flop_counts().get("Global", {}).items():
        work["convolution" if "conv" in str(operator) else "product"] += count
    return work


def _busy(work: dict[str, int], device: torch.device) -> float:
    """Share of the work that keeps the device busy; 1 and more is too much for a stack."""
    return sum(count / IDLE[device.type][kind] for kind, count in work.items())


def budget_of(gigabytes: float, device: torch.device) -> int:
    """`inner.memory_gb` in bytes; 0 takes a share of what the device has (not of what is free: a run that is started
    again must choose the same).
    """
    if gigabytes:
        return round(gigabytes * 1e9)
    if device.type == "cuda":
        return round(SHARE * torch.cuda.get_device_properties(device).total_memory)
    return round(SHARE * host_memory_bytes())


def choose(cost: Footprint, steps: int, budget: int, snapshots: Snapshots = Snapshots.device) -> tuple[Unroll, int]:
    """Unroll and `keep`: every stored step saves the rebuilding of one, so as many are stored as `budget` bytes allow.

    The leanest choice is taken where none fits, with a warning.
    """
    tried = [(Unroll.stored, 0), *((Unroll.recompute, keep) for keep in range(steps - 1, -1, -1))]
    for unroll, keep in tried:
        peak = cost.peak(unroll, steps, keep, snapshots)
        if peak <= budget:
            logger.info(
                "inner.unroll=auto: %s, keep=%d: %.2f GB of at most %.2f GB", unroll, keep, peak / 1e9, budget / 1e9
            )
            return unroll, keep
    logger.warning(
        "inner.unroll=auto: even recompute with keep=0 needs %.2f GB, and the budget is %.2f GB; smaller with "
        "inner.micro_batch=1, inner.snapshots=host on a GPU, or inner.unroll=truncate", peak / 1e9, budget / 1e9
    )  # fmt: skip
    return Unroll.recompute, 0
