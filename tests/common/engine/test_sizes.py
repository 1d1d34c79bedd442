"""Memory that was freed is handed out again without a page fault, once that is asked for."""

import ctypes
import resource
import sys

import pytest
import torch

from common.engine.cuda.sizes import KEPT, keep_freed

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of glibc")
def test_freed_megabytes_come_again_without_their_pages_being_cleared() -> None:
    def faults() -> int:
        """Of a second piece of 8 MiB, after a first one was freed."""
        for _ in range(2):
            began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2 * MIB)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began

    for option in KEPT:  # as glibc begins
        ctypes.CDLL("libc.so.6").mallopt(option, MIB // 8)
    before = faults()
    keep_freed()
    assert before > 1000 and faults() < 100
