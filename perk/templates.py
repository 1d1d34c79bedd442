"""Problems as rows of tokens, and answers read off what a model says.

The strings are data: `data.templates` replaces any of them. Prompt and target are tokenised apart and joined.
"""

import re
from collections.abc import Iterator, Sequence
from string import Formatter
from typing import TYPE_CHECKING

from common.errors import UserError
from common.language.batch import Row
from perk.config import Target, TemplateConfig
from perk.problems import Problem, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOTS = {
    "label": (set(), {"index"}),
    "question": ({"question"}, {"count"}),
    "in_context": ({"context", "question"}, set()),
    "in_context_segment": ({"text"}, {"index"}),
    "answer": ({"answer"}, set()),
    "support": ({"support", "answer"}, set()),
}
"""Template -> (slots it must have, slots it may have besides)."""
SHORTER = "lower data.segment (documents and records are not cut), or use a model with a longer window"
ASK_LESS = "leave the supporting facts out (method.target=answer), or use a model with a longer window"
_PIECE = re.compile(r"\w+|[^\w\s]")
_HERE = "\0"
"""Where the context goes; no text holds it."""


class Templates:
    """Turns problems into token rows for one tokenizer."""

    def __init__(self, config: TemplateConfig, tokenizer: "PreTrainedTokenizerBase", window: int) -> None:
        """`window`: the model's context in tokens.

        Raises:
            UserError: a template lacks a slot, or names one it does not have.
        """
        for name in SLOTS:
            _check_slots(name, getattr(config, name))
        self.config, self.tokenizer, self.window = config, tokenizer, window
        self.eos = int(tokenizer.eos_token_id)
        before, after = _around_answer(config.support)
        begin = f".*{_loose(before)}" if before.strip() else "^"  # the support may hold the same words
        end = f"{_loose(after)}|$" if after.strip() else "$"
        self._answer = re.compile(rf"{begin}\s*(.*?)\s*(?:{end})", re.IGNORECASE | re.DOTALL)

    def segments(self, problem: Problem) -> list[Row]:
        """One row a segment, its label given and its text to be memorised, as in the released code.

        Raises:
            UserError: a segment does not fit the model's window, or all together have nothing to predict.
        """
        return self.memorised(problem.segments, problem.labels or range(len(problem.segments)), problem.id)

    def memorised(self, segments: Sequence[str], numbers: Sequence[int], name: str) -> list[Row]:
        """The same for segments of the given numbers; `name` of their context is for messages.

        Raises:
            UserError: as `segments`.
        """
        rows = [
            self._row(self.config.label.format(index=number), text, f"{name}, segment {place}", SHORTER)
            for place, (number, text) in enumerate(zip(numbers, segments, strict=True))
        ]
        if not any(predicted(row) for row in rows):
            raise UserError(
                f"{name}: a context of {_count(sum(len(row.ids) for row in rows), 'token')} in "
                f"{_count(len(rows), 'segment')} has nothing to predict, so nothing can be memorised; give a longer "
                "one, or a label in data.templates.label"
            )
        return rows

    def question(self, problem: Problem, question: Question, target: Target) -> Row:
        """The question on its own, and what is to be said."""
        prompt = self.prompt(question.text, len(problem.segments))
        return self._row(prompt, self.target(question, target), question.id, ASK_LESS, end=True)

    def prompt(self, question: str, count: int) -> str:
        """What a learner reads that has memorised `count` segments."""
        return self.config.question.format(count=count, question=question)

    def asked(self, question: str, count: int) -> list[int]:
        """The same as tokens."""
        return self._tokens(self.prompt(question, count))

    def in_context(self, segments: Sequence[str], question: Question, target: Target, reserve: int) -> tuple[Row, int]:
        """Segments, question and target in one row, and how many tokens of the segments' beginning were left out, so
        that the prompt and `reserve` tokens fit the model's window.

        Raises:
            UserError: not even the question fits.
        """
        context = "".join(self.config.in_context_segment.format(index=i, text=text) for i, text in enumerate(segments))
        around = self.config.in_context.format(context=_HERE, question=question.text)
        head, tail = map(self._tokens, around.split(_HERE))
        body = self._tokens(context)
        said = [*self._tokens(self.target(question, target)), self.eos]
        room = self.window - len(head) - len(tail) - max(reserve, len(said))
        if room <= 0:
            raise UserError(
                f"{question.id}: question and answer need {self.window - room} tokens, the model reads {self.window}; "
                "lower evaluation.max_new_tokens, or raise model.positions"
            )
        cut = max(0, len(body) - room)
        prompt = [*head, *body[cut:], *tail]
        return Row(tuple([*prompt, *said]), len(prompt), name=question.id), cut

    def target(self, question: Question, target: Target) -> str:
        """What a learner is trained to say: the answer, behind the facts that give it if they are wanted and known."""
        if self.supported(question, target):
            return self.config.support.format(support=" ".join(question.support), answer=question.answers[0])
        return self.config.answer.format(answer=question.answers[0])

    @staticmethod
    def supported(question: Question, target: Target) -> bool:
        """Does the target begin with supporting facts?"""
        return target is Target.support and bool(question.support)

    def read(self, response: str, question: Question, target: Target) -> str:
        """The answer in a response; empty where its support is not followed by one."""
        return self.said(response, supported=self.supported(question, target))

    def said(self, response: str, *, supported: bool) -> str:
        """The same where it is known whether the target begins with supporting facts."""
        if not supported:
            return response.strip()
        found = self._answer.search(response)
        return found[1].strip() if found else ""

    def _row(self, given: str, said: str, name: str, remedy: str, *, end: bool = False) -> Row:
        prompt, target = self._tokens(given), self._tokens(said)
        ids = (*prompt, *target, *([self.eos] if end else []))
        if len(ids) > self.window:
            raise UserError(f"{name}: {len(ids)} tokens, the model reads {self.window}; {remedy}")
        return Row(ids, len(prompt), name=name)

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []


def predicted(row: Row) -> int:
    """How many tokens of a row are predicted: those to be said, but for one that begins the row."""
    return len(row.ids) - max(1, row.scored_from) if row.ids else 0


def token_shares(rows: Sequence[Row]) -> list[float]:
    """Share of every row in a mean over all predicted tokens."""
    counts = [predicted(row) for row in rows]
    return [count / sum(counts) for count in counts]


def _around_answer(template: str) -> tuple[str, str]:
    """The literal text right before and after {answer}.

    Raises:
        UserError: nothing would tell the answer from the support.
    """
    literals = [(text, slot) for text, slot, _, _ in Formatter().parse(template)]
    place = next(i for i, (_, slot) in enumerate(literals) if slot == "answer")
    after = literals[place + 1][0] if place + 1 < len(literals) else ""
    follows = place + 1 < len(literals) and literals[place + 1][1] is not None
    if (place and not literals[place][0].strip()) or (follows and not after.strip()):
        raise UserError(
            f"data.templates.support={template!r}: nothing stands between the answer and the support, so it could not "
            "be read back; put a word or a sign there"
        )
    return literals[place][0], after


def _loose(text: str) -> str:
    """A pattern for `text` with any blanks between its pieces, as a word-level decoder sets them; words are whole."""
    pieces = (rf"\b{piece}\b" if piece[0].isalnum() else re.escape(piece) for piece in _PIECE.findall(text))
    return r"\s*".join(pieces)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _slots(template: str) -> Iterator[str]:
    return (slot for _, slot, _, _ in Formatter().parse(template) if slot is not None)


def _check_slots(name: str, template: str) -> None:
    needed, more = SLOTS[name]
    try:
        slots = list(_slots(template))
    except ValueError as error:
        raise UserError(f"data.templates.{name}={template!r}: {error}; write {{{{ for a brace") from error
    found = set(slots)
    if missing := needed - found:
        raise UserError(f"data.templates.{name}={template!r}: put {{{sorted(missing)[0]}}} into it")
    if strange := found - needed - more:
        known = ", ".join(f"{{{slot}}}" for slot in sorted(needed | more))
        raise UserError(f"data.templates.{name}={template!r}: unknown slot {{{sorted(strange)[0]}}}; it has {known}")
    if (times := slots.count("context")) > 1:
        raise UserError(f"data.templates.{name}={template!r}: it has {{context}} {times} times; once is possible")
