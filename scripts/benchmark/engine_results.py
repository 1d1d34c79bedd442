"""Notes below the tables of the engine benchmark."""

from collections.abc import Mapping, Sequence

from scripts.benchmark.case_results import MIB, Result, missing, slope, verdict


def growth_note(name: str, labels: Sequence[tuple[int, str]], results: Mapping[str, Result], most: float | None) -> str:
    """Memory of one more inner step, in copies of the fast weights; labels with their numbers of steps."""
    if lost := missing([label for _, label in labels], results):
        return f"{name}: {lost}"
    found = [(count, results[label]) for count, label in labels]
    allocated = slope([(count, result.allocated) for count, result in found])
    resident = slope([(count, result.peak) for count, result in found])
    copies = allocated / found[0][1].fast_bytes
    target = "" if most is None else f"; target {verdict(copies, most)}"
    return (
        f"{name}: {allocated / MIB:+.1f} MiB allocated ({resident / MIB:+.1f} resident) an inner step, "
        f"{copies:.2f} copies of the fast weights{target}"
    )


def pair_note(label: str, other: str, results: Mapping[str, Result], most: float) -> str:
    """Time of one case in times of another."""
    if lost := missing([label, other], results):
        return f"{label}: {lost}"
    share = results[label].median / results[other].median
    return f"{label}: {share:.2f} of the time of {other}; target {verdict(share, most)}"


def truncation_notes(kept: Mapping[int, str], short: str, first_order: str, results: Mapping[str, Result]) -> list[str]:
    """Cost of a kept step, and of one that is not: K=8 less K=2, both with two kept, against first order's K=8."""
    notes = []
    if lost := missing(list(kept.values()), results):
        notes.append(f"a kept step: {lost}")
    else:
        found = [(keep, results[label]) for keep, label in kept.items()]
        memory = slope([(keep, result.allocated) for keep, result in found]) / MIB
        seconds = slope([(keep, result.median) for keep, result in found])
        notes.append(f"a kept step: {memory:+.1f} MiB allocated, {seconds:+.3f} s")
    if lost := missing([kept[2], short, first_order], results):
        return [*notes, f"a truncated step: {lost}"]
    cut = (results[kept[2]].median - results[short].median) / 6
    whole = results[first_order].median / 8
    note = f"a truncated step: {cut:.3f} s, {cut / whole:.2f} of a first-order one ({whole:.3f} s)"
    return [*notes, f"{note}; target {verdict(cut / whole, 1.15)}"]


def auto_notes(chosen: Mapping[float, str], fixed: Sequence[str], results: Mapping[str, Result]) -> list[str]:
    """`auto` at each budget in bytes against the fastest fixed choice whose peak fits it."""
    notes = []
    for budget, label in chosen.items():
        if lost := missing([label, *fixed], results):
            notes.append(f"{label}: {lost}")
            continue
        fitting = [name for name in fixed if results[name].peak <= budget]
        if not fitting:
            notes.append(f"{label}: no fixed choice fits")
            continue
        best = min(fitting, key=lambda name: results[name].median)
        over = "" if results[label].peak <= budget else f"; OVER its budget with {results[label].peak / 1e9:.2f} GB"
        notes.append(pair_note(label, best, results, 1.05) + over)
    return notes
