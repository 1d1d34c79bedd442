"""What stands below the tables of FAL's benchmark: factors over both loops, memory beside them, and what was wanted."""

from collections.abc import Mapping, Sequence
from statistics import median

from scripts.benchmark.case_results import MIB, Result, missing

Labels = Mapping[int, Mapping[str, str]]
"""Batch -> engine -> row."""


def round_lines(
    labels: Labels, wanted: Mapping[int, tuple[float, float]], beyond: float, results: Mapping[str, Result]
) -> list[str]:
    """A table of factors, a row an engine and batch; targets stand at the plan's.

    The factor over the lean loop is that of runs in turn in one process; that over the usual loop goes by the lean one,
    which ran beside both.

    Args:
        labels: the rows of the group.
        wanted: batch -> factors over the usual and over the lean loop.
        beyond: MiB that a round may hold more than the lean loop.
        results: by row.
    """
    columns = ["batch", "engine", "over usual", "over lean", "MiB beyond lean", "largest difference", "wanted"]
    lines = [f"| {' | '.join(columns)} |", "| ---: | --- | ---: | ---: | ---: | ---: | --- |"]
    for batch, rows in labels.items():
        for engine, label in rows.items():
            if lost := missing([label, rows["usual"], rows["lean"]], results):
                lines.append(f"| {batch} | {engine} | {lost} |{' |' * (len(columns) - 3)}")
                continue
            found, lean = results[label], results[rows["lean"]]
            factors = found.times_as_fast / results[rows["usual"]].times_as_fast, found.times_as_fast
            more = (found.allocated - lean.allocated) / MIB
            told = ""
            if engine == "plan":
                names = zip(("usual", "lean"), factors, wanted[batch], strict=True)
                found_out = [f"{name} {at_least(factor, least)}" for name, factor, least in names if least]
                told = "; ".join([*found_out, f"memory <= {beyond:.0f} MiB: {'met' if more <= beyond else 'missed'}"])
            cells = [str(batch), engine, *(f"{factor:.2f}" for factor in factors), f"{more:+.1f}"]
            lines.append(f"| {' | '.join([*cells, f'{found.difference:.1e}', told])} |")
    return [*lines, ""]


def choice_lines(labels: Sequence[str], least: float, results: Mapping[str, Result]) -> list[str]:
    """What the plan takes in each row, and what the other way would have given, as factors over the lean loop."""
    lines = ["| round | the plan takes | over lean | the other way | wanted |", "| --- | --- | ---: | ---: | --- |"]
    for label in labels:
        if lost := missing([label], results):
            lines.append(f"| {label} | {lost} | | | |")
            continue
        found = results[label]
        way, factor = "a stack" if found.stacked else "the loop", found.times_as_fast
        lines.append(f"| {label} | {way} | {factor:.2f} | {median(found.other):.2f} | {at_least(factor, least)} |")
    return [*lines, ""]


def at_least(factor: float, least: float) -> str:
    """Two decimals count, as printed."""
    return f">= {least:.2f}: {'met' if round(factor, 2) >= least else 'missed'}"


def flat_lines(labels: Mapping[int, str], most: float, results: Mapping[str, Result]) -> list[str]:
    """Resident memory of the process by number of clients."""
    if lost := missing(list(labels.values()), results):
        return [lost, ""]
    few, many = (results[label] for label in labels.values())
    (one, other), share = labels, many.resident / few.resident
    return [
        f"The process holds at most {few.resident / MIB:.0f} MiB with {one} clients and {many.resident / MIB:.0f} MiB "
        f"with {other}: {share:.3f}; target <= {most:.2f}: {'met' if round(share, 2) <= most else 'missed'}",
        "",
    ]


def early_lines(labels: Sequence[str], least: float, results: Mapping[str, Result]) -> list[str]:
    """What an early exit is worth."""
    if lost := missing(labels, results):
        return [lost, ""]
    slow, fast = (results[label] for label in labels)
    return [
        f"Robust accuracy {slow.robust:.3f} with all items and {fast.robust:.3f} with an early exit, which is "
        f"{slow.median / fast.median:.2f} times as fast; target {at_least(slow.median / fast.median, least)}",
        "",
    ]


def library_lines(
    labels: Mapping[int, tuple[str, str]], least: Mapping[int, float], results: Mapping[str, Result]
) -> list[str]:
    """How many times as fast our round is as a library's, by number of clients; rows are the library's and ours."""
    lines = []
    for count, (its, own) in labels.items():
        if lost := missing([its, own], results):
            lines += [lost, ""]
            continue
        factor = results[its].median / results[own].median
        told = f"; target {at_least(factor, least[count])}" if least[count] else ""
        lines += [
            f"{count} clients: ours is {factor:.1f} times as fast, {count / results[own].median:.0f} clients a second "
            f"and {count / results[its].median:.1f}; the weights differ by at most {results[its].difference:.1e}{told}",
            "",
        ]
    return lines
