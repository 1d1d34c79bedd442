"""What stands below the tables of the benchmark of fast learning."""

from collections.abc import Mapping, Sequence

from scripts.benchmark.case_results import Result, missing

SHARE, PAPER_TIME, PAPER_MEMORY = 0.10, "+6.8 %", "+3.7 %"
"""Wanted of one step with one draw beside 50 sampling steps; and what the paper's Table 3 says of both."""


def fast_lines(sampling: Sequence[int], draws: Sequence[int], results: Mapping[str, Result]) -> list[str]:
    """A table of what learning adds to sampling; the target stands at the first row."""
    lines = [
        "| sampling steps | draws | time | memory beyond sampling's peak | wanted |",
        "| ---: | ---: | ---: | ---: | --- |",
    ]
    for place, (steps, drawn) in enumerate((steps, drawn) for steps in sampling for drawn in draws):
        labels = [f"sample, {steps} steps", f"learn, {drawn} draw(s)"]
        if lost := missing(labels, results):
            lines.append(f"| {steps} | {drawn} | {lost} | | |")
            continue
        sample, learn = (results[label] for label in labels)
        share = learn.median / sample.median
        more = max(0, learn.allocated - sample.allocated)
        told = "" if place else f"<= {SHARE:.0%}: {'met' if round(share, 2) <= SHARE else 'missed'}"
        lines.append(f"| {steps} | {drawn} | +{share:.1%} | +{more / 1e6:.2f} MB | {told} |")
    return [*lines, "", f"The paper, one V100: {PAPER_TIME} time and {PAPER_MEMORY} memory (352 MB).", ""]


def memory_lines(kinds: Sequence[str], results: Mapping[str, Result]) -> list[str]:
    """The estimates in gigabytes, weights and optimiser included."""
    if lost := missing(kinds, results):
        return [lost, ""]
    return [", ".join(f"{kind} {results[kind].peak / 1e9:.1f} GB" for kind in kinds) + ", with float32 throughout.", ""]
