"""Questions with their passages: readers of the official HotpotQA and TriviaQA files and of the passage pool.

HotpotQA (Yang et al., 2018) and Wikipedia's text are licensed CC BY-SA 4.0, TriviaQA (Joshi et al., 2017) Apache-2.0.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.given import name_of
from common.data.jsonfile import read_objects
from common.data.textfile import read_text
from common.errors import UserError
from common.language.normal import normalise
from perk.metrics import substring_match

EVIDENCE_WORDS = 100
"""Official TriviaQA documents are cut into passages of so many words, as the retrieved ones are."""
CLOSED = ("yes", "no")
"""Answers that every passage may hold."""


@dataclass(frozen=True)
class Passage:
    """A paragraph under its title."""

    title: str
    text: str

    @property
    def head(self) -> str:
        """What stands before the text."""
        return f"Document (Title: {self.title}):"

    @property
    def line(self) -> str:
        """As the context shows it (HELMET's form)."""
        return f"{self.head} {self.text}"


@dataclass(frozen=True)
class Item:
    """A question; `support` are sentences of the gold passages, () where not known; `others` come with the question."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str
    gold: tuple[Passage, ...]
    others: tuple[Passage, ...]
    support: tuple[str, ...] = ()


def looked_for(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers that a passage may give away: yes and no are no words to look for."""
    return tuple(answer for answer in answers if normalise(answer) not in CLOSED)


def gives_away(text: str, answers: Sequence[str]) -> bool:
    """Would the text be a right answer by the metric? Then it is no distractor."""
    return substring_match(text, looked_for(answers))


def holds(text: str, answers: Sequence[str]) -> bool:
    """Does the text give an accepted answer, in whole words? Then it may be gold: a part of a word tells nothing."""
    words = f" {normalise(text)} "
    return any((found := normalise(a)) and f" {found} " in words for a in looked_for(answers))


def read_hotpotqa(path: Path) -> Iterator[Item]:
    """Questions of a HotpotQA file in the distractor setting: official, one array, or one object a line.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    seen: dict[str, int] = {}
    for line, value in read_objects(path, remedy="give the path of a HotpotQA file"):
        where = f"{path}:{line}"
        wanted = {"question": str, "answer": str, "supporting_facts": list, "context": list}
        _check(value, wanted, where)
        try:
            paragraphs = {str(title): [str(s).strip() for s in sentences] for title, sentences in value["context"]}
            facts = [(str(title), int(number)) for title, number in value["supporting_facts"]]
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: context is [title, [sentences]] and supporting_facts [title, number]") from error
        if missing := [title for title, _ in facts if title not in paragraphs]:
            raise UserError(
                f"{where}: supporting fact of {missing[0]!r}, which is not in the context; correct the line"
            )
        passages = {title: Passage(title, " ".join(filter(None, told))) for title, told in paragraphs.items()}
        titles = list(dict.fromkeys(title for title, _ in facts))
        if not titles or not all(passages[title].text for title in titles):
            raise UserError(f"{where}: no text under the supporting titles {titles}; correct the line")
        # a few official facts number a sentence that is not there
        support = [paragraphs[title][number] for title, number in facts if number < len(paragraphs[title])]
        yield Item(
            id=_id(value, path, line, seen),
            question=value["question"].strip(),
            answers=(value["answer"].strip(),),
            kind=str(value.get("type") or "hotpotqa"),
            gold=tuple(passages[title] for title in titles),
            others=tuple(passage for title, passage in passages.items() if title not in titles and passage.text),
            support=tuple(support),
        )


def read_triviaqa(path: Path, evidence: Path | None, most_gold: int) -> Iterator[Item]:
    """Questions of a TriviaQA file: the official form (`Data`, with documents below `evidence`), or one object a line
    with question, answers and passages. Gold are the first passages that hold an answer; questions without one are left
    out.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    seen: dict[str, int] = {}
    for line, value in read_objects(path, field="Data", remedy="give the path of a TriviaQA file"):
        where = f"{path}:{line}"
        if "Question" in value:
            question, answers, passages = _official(value, where, evidence)
        else:
            _check(value, {"question": str, "answers": list, "passages": list}, where)
            question = value["question"]
            if strange := [each for each in value["answers"] if not isinstance(each, str)]:
                raise UserError(f"{where}: answers hold {strange[0]!r}, which is no text; put it in quotes")
            answers = tuple(value["answers"])
            passages = [_passage(each, where) for each in value["passages"]]
        if not any(map(normalise, answers)):
            raise UserError(f"{where}: no answer; give at least one")
        name = _id(value, path, line, seen)
        unique = list(dict.fromkeys(passages))
        gold = tuple(p for p in unique if holds(f"{p.title} {p.text}", answers))[:most_gold]
        if gold:
            others = tuple(p for p in unique if p not in gold)
            yield Item(name, question.strip(), answers, "triviaqa", gold, others)


def _official(value: dict[str, Any], where: str, evidence: Path | None) -> tuple[str, tuple[str, ...], list[Passage]]:
    _check(value, {"Question": str, "QuestionId": str, "Answer": dict}, where)
    if evidence is None:
        raise UserError(f"{where}: official TriviaQA names documents; set data.documents.evidence=<folder evidence>")
    answer = value["Answer"]
    answers = tuple(dict.fromkeys([str(answer.get("Value", "")), *map(str, answer.get("Aliases", []))]))
    passages = []
    for place in (*value.get("EntityPages", []), *value.get("SearchResults", [])):
        kind = "wikipedia" if place in value.get("EntityPages", []) else "web"
        if "Filename" in place:
            words = read_text(evidence / kind / place["Filename"], remedy="unpack TriviaQA's evidence there").split()
            for start in range(0, len(words), EVIDENCE_WORDS):
                text = " ".join(words[start : start + EVIDENCE_WORDS])
                passages.append(Passage(str(place.get("Title", "")), text))
    return value["Question"], answers, passages


def _id(value: Mapping[str, Any], path: Path, line: int, seen: dict[str, int]) -> str:
    """The question's id, by default file and line; by it questions are put together, so it must be its own."""
    names = ("_id", "id", "QuestionId")
    given = next((value[name] for name in names if value.get(name) is not None), None)
    found = name_of(given, "id", f"{path}:{line}") or f"{path.name.split('.')[0]}:{line}"
    if found in seen:
        raise UserError(f"{path}:{line}: id {found!r} was used in line {seen[found]}; give every question its own")
    seen[found] = line
    return found


def read_pool(path: Path) -> Iterator[Passage]:
    """Passages of a file with one object {title, text} a line.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    for line, value in read_objects(path, remedy="give the path of a file with passages"):
        yield _passage(value, f"{path}:{line}")


def _passage(value: Any, where: str) -> Passage:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str) or not value["text"].strip():
        raise UserError(f"{where}: a passage needs title and text; correct the line")
    return Passage(str(value.get("title", "")).strip(), re.sub(r"\s+", " ", value["text"]).strip())


def _check(value: dict[str, Any], wanted: Mapping[str, type], where: str) -> None:
    for field, kind in wanted.items():
        if not isinstance(value.get(field), kind) or not value[field]:
            raise UserError(f"{where}: {field}={value.get(field)!r}: a {kind.__name__} with content is needed")
