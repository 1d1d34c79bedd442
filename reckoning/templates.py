"""The exact strings of the paper's code (sheet section 2.4) and their tokens.

Prompt and target are tokenised apart and joined, nothing separates them; the index prefix of a fact is conditioned on
and never scored. The strings are data: `data.templates` replaces any of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING

from common.errors import UserError
from reckoning.config import Target, TemplateConfig
from reckoning.problems import Problem, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOTS = {
    "fact": {"index", "fact"},
    "reference": {"index"},
    "question": {"references", "question"},
    "in_context_question": {"question"},
    "multi_target": {"answer", "facts"},
}


@dataclass(frozen=True)
class Row:
    """One sequence: token `ids`, of which those from `scored_from` on are predicted and scored."""

    ids: tuple[int, ...]
    scored_from: int
    name: str = field(compare=False, default="")

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens that are given."""
        return self.ids[: self.scored_from]


class Templates:
    """Turns problems into token rows for one tokenizer."""

    def __init__(
        self, config: TemplateConfig, labels: dict[str, str], tokenizer: "PreTrainedTokenizerBase", window: int
    ) -> None:
        """`labels` maps a label of the data to the word the model says; `window` is the model's context in tokens.

        Raises:
            UserError: a template names a slot it does not have.
        """
        for name, slots in SLOTS.items():
            text = getattr(config, name)
            try:
                used = {slot for _, slot, _, _ in Formatter().parse(text) if slot is not None}
            except ValueError as error:
                raise UserError(f"data.templates.{name}={text!r}: {error}; write slots as {{{min(slots)}}}") from error
            if not used <= slots:
                raise UserError(f"data.templates.{name}={text!r}: unknown slot {sorted(used - slots)}; use {sorted(slots)}")
        self.config, self.labels, self.tokenizer, self.window = config, labels, tokenizer, window
        self.eos = int(tokenizer.eos_token_id)
        self._tokens = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def answer_word(self, question: Question) -> str:
        """The word the model has to say for the question's label (true -> yes)."""
        return self.labels.get(question.answer, question.answer)

    def fact(self, index: int, fact: str) -> Row:
        """`fact_3: Anne is kind`: the sentence is scored, the prefix is not, no end-of-text token follows."""
        prefix, _, suffix = self.config.fact.partition("{fact}")
        given = self._tokens(prefix.format(index=index))
        return self._row(given, self._tokens(fact + suffix), f"fact {fact!r}")

    def question(self, problem: Problem, question: Question, target: Target) -> Row:
        """RECKONING's outer row: the question with references `fact_0 ... fact_n-1`, then the target."""
        references = " ".join(self.config.reference.format(index=i) for i in range(len(problem.facts)))
        prompt = self.config.question.format(references=references, question=question.text)
        return self._asked(self._tokens(prompt), problem, question, target)

    def in_context(
        self, facts: Sequence[str], problem: Problem, question: Question, target: Target, *, ask: bool = True
    ) -> Row:
        """FT-ICR's row: end-of-text, one given fact a line, the question; `ask=False` leaves it out (No-Question)."""
        asked = self.config.in_context_question.format(question=question.text) if ask else ""
        prompt = (self.eos, *self._tokens("\n".join([*facts, asked])))
        return self._asked(prompt, problem, question, target)

    def _asked(self, prompt: tuple[int, ...], problem: Problem, question: Question, target: Target) -> Row:
        answer = self.answer_word(question)
        if target is Target.multi and question.relevant:
            facts = ",".join(problem.facts[index] for index in question.relevant)
            answer = self.config.multi_target.format(answer=answer, facts=facts)
        return self._row(prompt, (*self._tokens(answer), self.eos), f"question {question.id}")

    def _row(self, given: tuple[int, ...], scored: tuple[int, ...], name: str) -> Row:
        if len(given) + len(scored) > self.window:
            raise UserError(
                f"{name}: {len(given)} given + {len(scored)} scored tokens, the model reads at most {self.window}; "
                "use a model with a longer window, or fewer facts (data.distractors)"
            )
        if not scored:
            raise UserError(f"{name}: the tokenizer makes no token of it; check the data and model.tokenizer")
        return Row((*given, *scored), len(given), name)
