"""How much memory there is, and how much a piece of work takes."""

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

RESET_HIGH_WATER = "5"
"""What /proc/self/clear_refs takes for: the resident high-water mark begins anew (`man 5 proc`)."""
KEPT = {-3: 32 * 2**20, -1: 64 * 2**20}
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD (`man 3 mallopt`) as glibc sets them once 32 MiB were freed at once."""


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` begin anew, where the system can: a sweep's process does one run after another."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER, encoding="utf-8")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held: on the device if that is CUDA, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def host_memory_bytes() -> int:
    """Memory of this machine; 0 where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


class MemoryMeter:
    """Most memory held inside a `with` block above what was held when it began.

    On CUDA these are bytes that torch has allocated; on the CPU, resident bytes of the whole process: what the C
    library kept of earlier work and hands out again is not seen, so call `give_back` before. Where the system cannot
    forget its high-water mark (anything but Linux) only what rises above the highest mark so far is seen, a lower
    bound. Blocks do not nest: an inner one forgets the outer one's peak.
    """

    peak: int
    """Bytes; there once the block has ended, by an error too."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> "MemoryMeter":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        elif sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER, encoding="utf-8")
            self._before = _status("VmRSS")
        else:
            self._before = peak_memory_bytes(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        resettable = self.device.type != "cuda" and sys.platform == "linux"
        self.peak = (_status("VmHWM") if resettable else peak_memory_bytes(self.device)) - self._before


def give_back(device: torch.device) -> None:
    """Collect what nobody refers to any more and give freed memory back, so that a peak is the next call's own."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_freed() -> None:
    """Let the C library hand out again what was freed, in pieces of up to 32 MiB, for the rest of the process.

    By itself it gives such pieces back to the system until it has seen a large one, and a loop that takes and frees the
    same megabytes again and again then waits for the system to clear their pages every time.
    """
    if sys.platform == "linux":
        for option, size in KEPT.items():
            ctypes.CDLL("libc.so.6").mallopt(option, size)


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key))
