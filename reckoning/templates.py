"""The exact strings of the paper's code and their tokens.

Prompt and target are tokenised apart and joined, nothing separates them; the index prefix of a fact is conditioned on
and never scored. The strings are data: `data.templates` replaces any of them.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING

from common.errors import UserError
from common.language.batch import Row
from reckoning.config import Target, TemplateConfig
from reckoning.problems import Problem, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOTS = {
    "fact": ({"fact"}, {"index"}),
    "reference": (set(), {"index"}),
    "question": ({"question"}, {"references"}),
    "in_context_question": ({"question"}, {"references"}),
    "multi_target": ({"answer", "facts"}, set()),
}
"""Template -> (slots it must have, slots it may have besides)."""


class Templates:
    """Turns problems into token rows for one tokenizer."""

    def __init__(
        self, config: TemplateConfig, labels: dict[str, str], tokenizer: "PreTrainedTokenizerBase", window: int
    ) -> None:
        """`labels` maps a label of the data to the word the model says; `window` is the model's context in tokens.

        Raises:
            UserError: a template lacks a slot, or names one it does not have.
        """
        for name in SLOTS:
            _check_slots(name, getattr(config, name))
        self.config, self.labels, self.tokenizer, self.window = config, labels, tokenizer, window
        self.eos = int(tokenizer.eos_token_id)
        self._tokens = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def answer_word(self, question: Question) -> str:
        """The word the model has to say for the question's label (true -> yes)."""
        return self.labels.get(question.answer, question.answer)

    def label_tokens(self, questions: Iterable[Question]) -> int:
        """Tokens that show any label of `questions`: those of the longest, and one to see where it ends."""
        return 1 + max(len(self._tokens(word)) for word in {self.answer_word(question) for question in questions})

    def fact(self, index: int, fact: str) -> Row:
        """`fact_3: Anne is kind`: the sentence is scored, the prefix is not, no end-of-text token follows."""
        prefix, _, suffix = self.config.fact.partition("{fact}")
        given = self._tokens(prefix.format(index=index))
        return self._row(given, self._tokens(fact + suffix.format(index=index)), f"fact {fact!r}")

    def question(self, problem: Problem, question: Question, target: Target) -> Row:
        """RECKONING's outer row: the question with references `fact_0 ... fact_n-1`, then the target."""
        prompt = self.config.question.format(references=self._references(problem.facts), question=question.text)
        return self._asked(self._tokens(prompt), problem, question, target)

    def in_context(
        self, facts: Sequence[str], problem: Problem, question: Question, target: Target, *, ask: bool = True
    ) -> Row:
        """FT-ICR's row: end-of-text, one given fact a line, the question; `ask=False` leaves it out (No-Question)."""
        template = self.config.in_context_question if ask else ""
        asked = template.format(references=self._references(facts), question=question.text)
        prompt = (self.eos, *self._tokens("\n".join([*facts, asked])))
        return self._asked(prompt, problem, question, target)

    def _references(self, facts: Sequence[str]) -> str:
        return " ".join(self.config.reference.format(index=index) for index in range(len(facts)))

    def _asked(self, prompt: tuple[int, ...], problem: Problem, question: Question, target: Target) -> Row:
        text = answer = self.answer_word(question)
        if target is Target.multi and question.relevant:
            facts = ",".join(problem.facts[index] for index in question.relevant)
            text = self.config.multi_target.format(answer=answer, facts=facts)
        scored = (*self._tokens(text), self.eos)
        return self._row(prompt, scored, f"question {question.id}", answer_tokens=len(self._tokens(answer)))

    def _row(self, given: tuple[int, ...], scored: tuple[int, ...], name: str, answer_tokens: int = 0) -> Row:
        given = given or (self.eos,)  # a template without prefix: something must predict the first token
        if len(given) + len(scored) > self.window:
            raise UserError(
                f"{name}: {len(given)} given + {len(scored)} scored tokens, the model reads at most {self.window}; "
                "use a model with a longer window, or fewer facts (data.distractors)"
            )
        if not scored:
            raise UserError(f"{name}: the tokenizer makes no token of it; check the data and model.tokenizer")
        return Row((*given, *scored), len(given), answer_tokens, name)


def _check_slots(name: str, text: str) -> None:
    needed, optional = SLOTS[name]
    known = "{" + "}, {".join(sorted(needed | optional)) + "}"
    try:
        used = {slot for _, slot, _, _ in Formatter().parse(text) if slot is not None}
    except ValueError as error:
        raise UserError(f"data.templates.{name}={text!r}: {error}; its slots are {known}") from error
    if strange := used - needed - optional:
        raise UserError(f"data.templates.{name}={text!r}: unknown slot {{{min(strange)}}}; its slots are {known}")
    for slot in sorted(needed):
        if slot not in used or text.count(f"{{{slot}}}") != 1:
            raise UserError(f"data.templates.{name}={text!r}: {{{slot}}} must stand in it once; its slots are {known}")
