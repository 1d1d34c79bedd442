"""What `python -m reckoning.data` prints: counts, one example as the model sees it, and how far shortcuts get."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.language.batch import Row
from common.language.sources import load_tokenizer
from common.tables.grid import grid
from reckoning.audit import Description, ShortcutResult, audit, describe, overlap
from reckoning.config import Target, TrainConfig
from reckoning.problems import Problem, Question
from reckoning.shortcut_rows import labels_of
from reckoning.templates import Templates

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

OPEN, CLOSE = "⟦", "⟧"
"""What stands between them is predicted and scored."""
END = "<end of text>"
WIDTH = 160
"""Of what goes to a file or a pipe."""
MOST_LABELS = 6
"""Of so many labels the table of shortcuts has a column each; of more there is a table by depth instead."""
BEST = 8
"""Shortcuts in the table by depth."""


class Characters:
    """Stands in for a tokenizer that is not there: one token a character, so that the strings can be shown."""

    eos_token_id = sys.maxunicode + 1

    def encode(self, text: str, **_: Any) -> list[int]:
        """Code points."""
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Inverse of `encode`."""
        return "".join(END if index == self.eos_token_id else chr(index) for index in ids)


def show(splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> None:
    """Print counts and overlaps, one example, and the shortcut audit."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for part in (counts(splits), overlaps(splits), *example(splits, config)):
        console.print(part, soft_wrap=isinstance(part, str))
    shortcuts(console, splits, config)


def counts(splits: Mapping[str, Sequence[Problem]]) -> "RenderableType":
    """A column a split."""
    found = {split: describe(problems) for split, problems in splits.items()}
    labels = dict.fromkeys(label for each in found.values() for label in each.labels)
    depths = dict.fromkeys(depth for each in found.values() for depth in each.depths)
    rows = {
        "problems (knowledge sets)": [_number(each.problems) for each in found.values()],
        "questions": [_number(each.questions) for each in found.values()],
        "theories": [_number(each.theories) for each in found.values()],
        **{f"answer {label}": [_share(each, each.labels.get(label, 0)) for each in found.values()] for label in labels},
        **{
            f"depth {'unknown' if depth is None else depth}": [
                _share(each, each.depths.get(depth, 0)) for each in found.values()
            ]
            for depth in sorted(depths, key=lambda depth: (depth is None, depth))
        },
        "sentences a problem": [_number(each.facts) for each in found.values()],
        "  of them base facts": [_number(each.base_facts) for each in found.values()],
        "relevant sentences a question": [_number(each.relevant) for each in found.values()],
        "distractors a question": [_number(each.distractors) for each in found.values()],
        "questions asked before": [_number(each.duplicates) for each in found.values()],
    }
    return grid("Counts", ["", *found], [[name, *values] for name, values in rows.items()])


def overlaps(splits: Mapping[str, Sequence[Problem]]) -> "RenderableType":
    """What each pair of splits shares."""
    shared = overlap(splits).items()
    rows = [[f"{a} and {b}", _number(both.theories), _number(both.questions)] for (a, b), both in shared]
    return grid("Shared between splits", ["", "theories", "equal questions on equal facts"], rows)


def example(splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> Iterator[str]:
    """The first training problem, row by row, in the tokens of the configured model."""
    tokenizer: Any
    try:
        tokenizer, note = load_tokenizer(config.model), f"tokens of {_source(config)}"
        if not tokenizer.encode("a", add_special_tokens=False):  # made up by the library where its files are missing
            raise UserError(f"{_source(config)}: its tokenizer has no vocabulary; put its files beside the weights")
    except UserError as error:
        tokenizer, note = Characters(), f"the text alone, without tokens: {error}"
    templates = Templates(config.data.templates, config.data.labels or {}, tokenizer, sys.maxsize)
    problem = splits["train"][0]
    target = config.method.target
    single = Target.single if target is Target.sum else target
    whole = target if target is not Target.sum else Target.multi
    yield f"One example, {problem.id} ({note})"
    yield f"Scored is what stands in {OPEN} {CLOSE}; the numbers are given + scored tokens."
    yield f"\nInner loop: {len(problem.facts)} rows"
    yield from (_marked(templates.fact(index, fact), tokenizer) for index, fact in enumerate(problem.facts))
    for number, question in enumerate(problem.questions, 1):
        yield f"\nQuestion {number} of {len(problem.questions)}, answer {question.answer}: RECKONING's outer row"
        yield _marked(templates.question(problem, question, single), tokenizer)
        if target is Target.sum:
            yield from (_marked(templates.fact(index, problem.facts[index]), tokenizer) for index in question.relevant)
        if number == 1:
            yield "The same question for FT-ICR"
            yield _marked(templates.in_context(problem.facts, problem, question, whole), tokenizer)
    yield ""


def _source(config: TrainConfig) -> str:
    return f"model.tokenizer={config.model.tokenizer}" if config.model.tokenizer else f"model.name={config.model.name}"


def _marked(row: Row, tokenizer: Any) -> str:
    given, scored = row.ids[: row.scored_from], row.ids[row.scored_from :]
    before, after = (_text(part, tokenizer).replace("\n", "\n             ") for part in (given, scored))
    sizes = "" if isinstance(tokenizer, Characters) else f"{len(given):4d} + {len(scored):<3d}"
    return f"{sizes:10}   {before}{OPEN}{after}{CLOSE}"


def _text(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def shortcuts(console: "Console", splits: Mapping[str, Sequence[Problem]], config: TrainConfig) -> None:
    """Accuracy on the test split of everything that needs no reasoning, best first."""
    labels = labels_of(splits, config)
    results = audit(splits["train"], splits["test"], labels, seed=config.data.seed)
    last = ("majority", "chance")
    results.sort(key=lambda rule: (rule.name in last and last.index(rule.name) + 1, -rule.accuracy))
    present = [label for label in labels if any(label in rule.per_class for rule in results)]
    shown = present if len(present) <= MOST_LABELS else []
    head = ["rule", "accuracy %", "balanced %", *(f"{label} %" for label in shown), "what it looks at"]
    console.print(grid("Shortcuts on the test split", head, [_shortcut_row(rule, shown) for rule in results]))
    asked = [question for problem in splits["test"] for question in problem.questions]
    if not shown and all(question.depth is not None for question in asked):
        rows = [(rule.name, _per_depth(rule, asked)) for rule in results[:BEST]]
        head = ["rule", *(f"depth {depth}" for depth in rows[0][1])]
        console.print(grid("The best by depth, accuracy %", head, [[name, *cells.values()] for name, cells in rows]))
    best = max(results, key=lambda rule: rule.accuracy)
    console.print(
        f"Best without reasoning: {best.name}, {100 * best.accuracy:.1f} % of {len(best.predictions)} questions. "
        "A method has learned to reason only as far as it is above that."
    )


def _shortcut_row(rule: ShortcutResult, labels: Sequence[str]) -> list[str]:
    shares = [rule.accuracy, rule.balanced_accuracy, *(rule.per_class.get(label) for label in labels)]
    return [rule.name, *("" if share is None else f"{100 * share:.1f}" for share in shares), rule.description]


def _per_depth(rule: ShortcutResult, asked: Sequence[Question]) -> dict[int, str]:
    """Accuracy on the questions of each depth."""
    right: dict[int, list[bool]] = {}
    for question, said in zip(asked, rule.predictions, strict=True):
        right.setdefault(question.depth or 0, []).append(said == question.answer)
    return {depth: f"{100 * sum(right[depth]) / len(right[depth]):.1f}" for depth in sorted(right)}


def _number(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _share(description: Description, count: int) -> str:
    return f"{count:,} ({100 * count / description.questions:.1f} %)"
