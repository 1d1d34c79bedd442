"""Memory that was freed is handed out again without a page fault, once that is asked for."""

import subprocess
import sys

import pytest

FRESH = """
import resource
from common.engine.cuda.sizes import keep_freed

def faults():
    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(24 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began

before = [faults(), faults()][1]
keep_freed()
print(before, [faults(), faults()][1])
"""
"""In a process of its own: what earlier tests have freed would be handed out, too."""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of glibc")
def test_freed_megabytes_come_again_without_their_pages_being_cleared() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 1000 and after < 100
