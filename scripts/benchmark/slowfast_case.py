"""The cases of the benchmark of fast learning: sampling, writing into a memory, the gradient through it."""

from collections.abc import Callable
from typing import Any

import torch

from common.engine.settings import Unroll
from scripts.benchmark.measuring import allocated_peak, fingerprint, gradients_of, peak_of, seconds_of, settle
from scripts.benchmark.slowfast_bench import Bench, config_of
from scripts.benchmark.slowfast_groups import ALONE, FAST, MEMORY, META, PLAIN, SAMPLE, STACK, Case
from scripts.benchmark.slowfast_others import Plain
from slowfast_vgen import counting
from slowfast_vgen.counting import Work, hollow
from slowfast_vgen.latents.grid import Grid
from slowfast_vgen.memory import Memory
from slowfast_vgen.model import skeleton

BACKBONE, FRAMES = Grid(4, 32, 32), 16
"""Latents of 256x256 pixels, and frames of a chunk of the paper's window."""
COUNTED = {"slow": counting.slow, "fast": counting.fast, "loop": counting.loop, "meta": counting.meta}


def measure(case: Case) -> dict[str, Any]:
    """The fields of a `Result`."""
    torch.set_num_threads(case.threads)
    if case.work == MEMORY:
        return backbone(case)
    bench = Bench(case)
    found: list[Memory] = []
    runs: dict[str, Callable[[], Any]] = {
        SAMPLE: bench.sampled,
        FAST: bench.written,
        STACK: lambda: found.append(bench.one_by_one() if case.engine == ALONE else bench.written()),
        META: Plain(bench).outer if case.engine == PLAIN else lambda: bench.outer(Unroll(case.engine)),
    }
    run = runs[case.work]
    first = seconds_of(run, case.device)
    gradient = gradients_of(bench.learners) if case.work == META else []
    if case.work == STACK:
        gradient = fingerprint(found[0].weights[name] for name in sorted(found[0].weights))
    settle(bench.learners, case.device)
    peak = peak_of(run, case.device)
    settle(bench.learners, case.device)
    allocated = allocated_peak(run, case.device)
    seconds = []
    for _ in range(case.repeats):
        settle(bench.learners, case.device)
        seconds.append(seconds_of(run, case.device))
    return {"seconds": seconds, "first": first, "peak": peak, "allocated": allocated, "gradient": gradient}


def backbone(case: Case) -> dict[str, Any]:
    """An estimate for the paper's network."""
    found: list[int] = []

    def run() -> None:
        config = config_of("modelscope")
        shape = hollow(skeleton(config, BACKBONE), config.kind, BACKBONE, 32)
        work = Work(FRAMES, clips=1, draws=1, steps=1, episodes=1, length=2, unroll=Unroll.recompute)
        found.append(COUNTED[case.engine](shape, work))

    seconds = seconds_of(run, case.device)
    return {"seconds": [seconds], "first": seconds, "peak": found[0], "allocated": found[0]}
