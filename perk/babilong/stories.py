"""Stories and the questions asked about them: reader and writer of bAbI's format.

A line is `ID sentence`, or `ID question<TAB>answer<TAB>IDs of supporting sentences`; at ID 1 a story begins. The bAbI
tasks v1.2 (Weston et al., 2015) are licensed CC BY 3.0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.data.splits import digest
from common.data.textfile import read_lines
from common.errors import UserError


@dataclass(frozen=True)
class Asked:
    """A question after the first `facts` sentences of its story; `support` are indices of sentences."""

    text: str
    answer: str
    support: tuple[int, ...]
    facts: int


@dataclass(frozen=True)
class Story:
    """Sentences in the order in which things happen, and questions in between."""

    facts: tuple[str, ...]
    asked: tuple[Asked, ...]

    @property
    def key(self) -> str:
        """Key of what is told, which no other split may tell."""
        return digest("\n".join(self.facts))


def read_stories(path: Path) -> list[Story]:
    """All stories of a bAbI file, plain or packed.

    Raises:
        UserError: `path:line: what is wrong; remedy`.
    """
    stories: list[Story] = []
    facts: list[str] = []
    asked: list[Asked] = []
    place_of: dict[int, int] = {}
    last = 0
    for line, text in read_lines(path, remedy="give the path of a bAbI file, such as qa1_..._train.txt"):
        where = f"{path}:{line}"
        number, text = _numbered(text, where)
        if number == 1 and last:
            stories.append(_finished(facts, asked, where))
            facts, asked, place_of = [], [], {}
        elif number != last + 1:
            raise UserError(f"{where}: ID {number} follows ID {last}; IDs of a story count up by one from 1")
        last = number
        if "\t" in text:
            asked.append(_question(text, place_of, len(facts), where))
        else:
            place_of[number] = len(facts)
            facts.append(text)
    if not last:
        raise UserError(f"{path}: the file is empty; give a bAbI file")
    return [*stories, _finished(facts, asked, str(path))]


def _numbered(text: str, where: str) -> tuple[int, str]:
    number, _, rest = text.partition(" ")
    if not number.isascii() or not number.isdigit() or not rest.strip():
        raise UserError(f"{where}: {text[:40]!r} does not begin with an ID; write `1 Mary moved to the bathroom.`")
    return int(number), rest.strip()


def _question(text: str, place_of: dict[int, int], told: int, where: str) -> Asked:
    parts = [part.strip() for part in text.split("\t")]
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{where}: a question needs three parts between tabs: question, answer, supporting IDs")
    support = []
    for name in parts[2].split():
        if not name.isdigit() or int(name) not in place_of:
            raise UserError(f"{where}: supporting ID {name!r} is no sentence before the question; correct it")
        support.append(place_of[int(name)])
    return Asked(parts[0], parts[1], tuple(support), told)


def _finished(facts: list[str], asked: list[Asked], where: str) -> Story:
    if not facts or not asked:
        raise UserError(f"{where}: the story before has {len(facts)} sentences and {len(asked)} questions; add some")
    return Story(tuple(facts), tuple(asked))


def lines_of(story: Story) -> Iterator[str]:
    """The story as lines of a bAbI file; `read_stories` is the inverse."""
    number, told = 0, 0
    ids: list[int] = []
    questions = sorted(story.asked, key=lambda asked: asked.facts)
    for asked in [*questions, None]:
        upto = asked.facts if asked else len(story.facts)
        for fact in story.facts[told:upto]:
            number += 1
            ids.append(number)
            yield f"{number} {fact}"
        told = upto
        if asked:
            number += 1
            yield f"{number} {asked.text}\t{asked.answer}\t{' '.join(str(ids[place]) for place in asked.support)}"
