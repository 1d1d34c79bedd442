"""What `python -m perk.data` prints: counts, one example, chance levels and what rules without reasoning get."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from common.tables.grid import grid
from perk.audit import MOST, Description, Result, audit, describe, shared
from perk.config import Task, TrainConfig
from perk.problems import Problem
from perk.tokens import load as load_tokens

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 160
"""Of what goes to a file or a pipe."""
SHOWN = 12
"""Segments of the example that are printed, besides those that hold the answer."""
TOP = 6
"""Most frequent answers that are printed."""
LONG = 600
"""Characters of a segment that are printed."""


def show(splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> None:
    """Print counts and overlaps, one example, and the audit."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    tokens = load_tokens(config.data.tokenizer, config.data.root)
    found = {
        split: describe(problems[:MOST], config.data.length_of(split), tokens) for split, problems in splits.items()
    }
    console.print(counts(splits, found, config))
    console.print(overlaps(found))
    console.print(example(splits["train"][0], config), soft_wrap=True)
    results = audit(splits["train"], splits["test"], config.data)
    console.print(levels(results))
    for searches, how in ((False, "without the context"), (True, "by a search for words in the context")):
        if chosen := [result for result in results if result.searches is searches]:
            best = max(chosen, key=lambda result: result.interval.value)
            console.print(
                f"Best {how}: {best.name}, {100 * best.interval.value:.1f} % of {best.interval.count} questions."
            )
    console.print("A method has learned to read only as far as it is above the first.")


def counts(
    splits: Mapping[str, Sequence[Problem]], found: Mapping[str, Description], config: TrainConfig
) -> "RenderableType":
    """A column a split."""
    kinds = sorted({kind for each in found.values() for kind in each.kinds})
    rows = {
        "problems (contexts)": [f"{len(problems):,}" for problems in splits.values()],
        "  of them looked at": [f"{each.problems:,}" for each in found.values()],
        "questions": [f"{each.questions:,}" for each in found.values()],
        "  with support": [_share(each.supported, each.questions) for each in found.values()],
        **{f"  {kind}": [_share(each.kinds[kind], each.questions) for each in found.values()] for kind in kinds},
        f"tokens a context ({config.data.tokenizer})": [_spread(each.tokens) for each in found.values()],
        **({} if config.data.task is Task.jsonl else _missed(found, config)),
        "segments a context": [_spread(each.segments) for each in found.values()],
        "tokens a segment": [_spread(each.sizes) for each in found.values()],
        f"  above {config.data.segment_tokens:,}": [
            _share(sum(size > config.data.segment_tokens for size in each.sizes), len(each.sizes))
            for each in found.values()
        ],
        "different answers": [f"{len(each.answers):,}" for each in found.values()],
    }
    for place in range(TOP):
        most = [each.answers.most_common(TOP) for each in found.values()]
        if any(place < len(each) for each in most):
            texts = [f"{each[place][0][:24]} ({each[place][1]})" if place < len(each) else "" for each in most]
            rows[f"  most frequent, {place + 1}"] = texts
    return grid("Counts", ["", *found], [[name, *values] for name, values in rows.items()])


def _missed(found: Mapping[str, Description], config: TrainConfig) -> dict[str, list[str]]:
    """How near contexts come to the length that is asked for."""
    return {
        "  asked for": [f"{config.data.length_of(split):,}" for split in found],
        "  missed by at most": [f"{100 * each.deviation:.2f} %" for each in found.values()],
    }


def overlaps(found: Mapping[str, Description]) -> "RenderableType":
    """What each pair of splits shares."""
    rows = [[f"{a} and {b}", f"{len(keys):,}"] for (a, b), keys in shared(found).items()]
    return grid("Shared between splits", ["", "stories, texts, students, passages, APIs"], rows)


def example(problem: Problem, config: TrainConfig) -> str:
    """The context's segments, cut short where it is long, and its questions."""
    count = len(problem.segments)
    gold = {place for question in problem.questions for place in question.gold}
    places = sorted(gold | set(range(min(count, SHOWN))))
    lines = [f"One example, {problem.id}: {count} segments, {problem.tokens:,} tokens; * holds support"]
    for place in places:
        text = problem.segments[place]
        text = text if len(text) <= LONG else f"{text[:LONG]} ... ({len(text):,} characters)"
        lines.append(f"{'*' if place in gold else ' '} {place:4d}  {text}")
    if left := count - len(places):
        lines.append(f"        ... and {left:,} segments more")
    for question in problem.questions:
        lines += ["", f"Question ({question.kind}): {question.text}", f"Answer: {' | '.join(question.answers)}"]
        lines += [f"Support: {sentence}" for sentence in question.support]
    return "\n".join([*lines, ""])


def levels(results: Sequence[Result]) -> "RenderableType":
    """Accuracy on the test split of everything that needs no reasoning, best first, chance last."""
    ranked = sorted(results, key=lambda result: (result.name == "chance", -result.interval.value))
    kinds = list(dict.fromkeys(kind for result in results for kind in result.kinds))
    kinds = kinds if len(kinds) > 1 else []
    head = ["rule", "accuracy %", "95 % interval", *(f"{kind} %" for kind in kinds), "what it says"]
    rows = [
        [
            result.name,
            f"{100 * result.interval.value:.1f}",
            f"{100 * result.interval.low:.1f} to {100 * result.interval.high:.1f}",
            *(f"{100 * result.kinds[kind]:.1f}" for kind in kinds),
            result.description,
        ]
        for result in ranked
    ]
    return grid("Chance levels and shortcuts on the test split", head, rows)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)"


def _spread(values: Sequence[int]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:,.1f} ({min(values):,} to {max(values):,})"
