"""What the process of a benchmark's case measures: seconds, peaks of memory, and fingerprints of gradients."""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from common.engine.cuda.sizes import MemoryMeter, give_back


def settle(learners: Iterable[Tensor], device: str) -> None:
    """Drop gradients and give freed memory back, so that a peak is the next call's own."""
    for learner in learners:
        learner.grad = None
    give_back(torch.device(device))


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Of one call, until the device is done; on one thread of the CPU those that the process itself had."""
    now = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    began = now()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - began


def peak_of(run: Callable[[], object], device: str) -> int:
    """Most memory that one call holds above what was there before it."""
    with MemoryMeter(torch.device(device)) as meter:
        run()
    return meter.peak


def allocated_peak(run: Callable[[], object], device: str) -> int:
    """The same in bytes that torch allocated, whatever the C library gave back or kept."""
    if device == "cuda":
        return peak_of(run, device)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as recorded:
        run()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    level = peak = 0
    for _, change in changes:
        level += change
        peak = max(peak, level)
    return peak


def gradients_of(learners: Iterable[Tensor]) -> list[float]:
    """`fingerprint` of their gradients; empty where there is none."""
    return fingerprint([w.grad for w in learners if w.grad is not None])


def fingerprint(tensors: Iterable[Tensor]) -> list[float]:
    """Norm of all of them together, and their unit vector times a fixed random one; empty of none."""
    found = [tensor.detach().flatten() for tensor in tensors]
    if not found:
        return []
    flat = torch.cat(found).double().cpu()
    probe = torch.randn(len(flat), generator=torch.Generator().manual_seed(2), dtype=torch.double)
    norm = flat.norm().item()
    return [norm, (flat @ probe).item() / norm if norm else 0.0]
