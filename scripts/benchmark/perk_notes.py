"""What stands below the tables of PERK's benchmark."""

import math
import statistics
from collections.abc import Mapping

from common.tables.breakeven import Line, break_even
from scripts.benchmark.case_results import MIB, Result, missing, slope

ASKED = (1, 10, 100)
"""Numbers of questions whose total time is written out."""


def retained_notes(labels: Mapping[int, Mapping[str, Mapping[int, str]]], results: Mapping[str, Result]) -> list[str]:
    """Memory and time of one more retained step, of both engines; `labels`: tokens -> engine -> T -> row."""
    notes = []
    for tokens, engines in labels.items():
        if lost := missing([label for series in engines.values() for label in series.values()], results):
            notes.append(f"{tokens} tokens, a retained step: {lost}")
            continue
        found = {name: {keep: results[label] for keep, label in series.items()} for name, series in engines.items()}
        allocated = {name: slope([(k, r.allocated / MIB) for k, r in own.items()]) for name, own in found.items()}
        resident = {name: slope([(k, r.peak / MIB) for k, r in own.items()]) for name, own in found.items()}
        seconds = {name: slope([(k, r.median) for k, r in own.items()]) for name, own in found.items()}
        shares = [found["ours"][keep].median / found["higher"][keep].median for keep in found["ours"]]
        words = [
            f"{allocated[name]:+.1f} MiB allocated ({resident[name]:+.1f} resident), {seconds[name]:+.3f} s with {name}"
            for name in ("higher", "ours")
        ]
        notes.append(
            f"{tokens} tokens, a retained step: {'; '.join(words)}; ours / higher: memory "
            f"{allocated['ours'] / allocated['higher']:.2f} ({resident['ours'] / resident['higher']:.2f} resident), an "
            f"outer step's time {statistics.median(shares):.2f}"
        )
    return notes


def flat_note(short: str, long: str, results: Mapping[str, Result]) -> str:
    """Memory of a long context in many groups against that of a short one in few."""
    if lost := missing([short, long], results):
        return f"{long}: {lost}"
    allocated, peak = (getattr(results[long], name) / getattr(results[short], name) for name in ("allocated", "peak"))
    return f"{long}: {allocated:.2f} of the allocated memory of {short} ({peak:.2f} of the resident)"


def answering_lines(labels: Mapping[int, tuple[str, str]], results: Mapping[str, Result]) -> list[str]:
    """A table of what reading and a question cost, and where PERK is faster; `labels`: tokens -> (FT-ICR, PERK)."""
    columns = [
        "tokens", "way", "read once, s", "a question, s", "kept, MiB", *(f"{n} questions, s" for n in ASKED),
        "PERK faster from",
    ]  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"| ---: | --- |{' ---: |' * (len(columns) - 2)}"]
    for tokens, pair in labels.items():
        if lost := missing(pair, results):
            lines.append(f"| {tokens} | {lost} |{' |' * (len(columns) - 2)}")
            continue
        there = [Line(results[label].median, results[label].question) for label in pair]
        crossing = break_even(there[1], there[0])
        for label, line, from_on in zip(pair, there, ("", _number(crossing)), strict=True):
            cells = [
                str(tokens), label.rpartition(", ")[2], f"{line.read:.3f}", f"{line.question:.4f}",
                f"{results[label].kept / MIB:.2f}", *(f"{line.total(n):.2f}" for n in ASKED), from_on,
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _number(questions: float) -> str:
    if math.isinf(questions):
        return "never"
    return f"{questions:,.0f} question{'s' if questions > 1 else ''}"
