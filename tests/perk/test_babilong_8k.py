"""An 8K set of real bAbI stories in real books, held against the files themselves: nothing of the builder's own code or
words about its problems is used but their segments, questions and answers.
"""

import gzip
import lzma
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perk.babilong.build import build
from perk.problems import Problem
from perk.tokens import load
from tests.perk.babi_solver import solve

LENGTH = 8192
COUNT = {"train": 2, "dev": 1, "test": 2}
NAMES = {
    1: "qa1_single-supporting-fact", 2: "qa2_two-supporting-facts", 3: "qa3_three-supporting-facts",
    4: "qa4_two-arg-relations", 5: "qa5_three-arg-relations",
}  # fmt: skip
EVENT = re.compile(r"(?:([A-Z]\w+) )?Event (\d+): ([A-Z][^.]*\.)")


@dataclass(frozen=True)
class Told:
    """A question of a bAbI file."""

    facts: tuple[str, ...]
    question: str
    answer: str
    support: tuple[str, ...]


@cache
def told_in(path: Path) -> list[Told]:
    """Line numbers begin anew with every story; a question has tabs and the numbers of its support."""
    found: list[Told] = []
    numbered: dict[int, str] = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        number, text = line.split(" ", 1)
        if int(number) == 1:
            numbered = {}
        if "\t" not in text:
            numbered[int(number)] = text.strip()
            continue
        question, answer, support = text.split("\t")
        facts = tuple(numbered[key] for key in sorted(numbered))
        found.append(Told(facts, question.strip(), answer, tuple(numbered[int(n)] for n in support.split())))
    return found


@pytest.fixture(scope="session")
def books(data_root: Path) -> dict[str, str]:
    """Every book as one line, without headings and rules."""
    found = {}
    for path in sorted((data_root / "books").glob("*.txt.xz")):
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()
        found[path.name] = " ".join(
            " ".join(line for line in lines if not re.match(r"#|\s*[-*_=\s]{3,}$", line)).split()
        )
    assert len(found) == 60
    return found


@pytest.fixture(scope="session")
def qwen(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Qwen's tokenizer as `transformers` has it."""
    from transformers import Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("qwen2")
    for name in ("vocab.json", "merges.txt"):
        packed = data_root / "tokenizers" / "qwen2" / f"{name}.xz"
        (folder / name).write_bytes(lzma.decompress(packed.read_bytes()))
    return Qwen2Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def sets(composed: Any, data_root: Path) -> Any:
    """Task and overrides -> split -> problems at 8K tokens."""

    def call(task: int, *words: str) -> dict[str, list[Problem]]:
        count = ",".join(f"{split}:{number}" for split, number in COUNT.items())
        given = [
            f"data.count={{{count}}}",
            "data.cache=null",
            f"data.root={data_root}",
            f"data.length={LENGTH}",
            *words,
        ]
        config = composed("+experiment=babilong_qa1", "data=babilong_books", f"data.babilong.task={task}", *given).data
        return {split: list(problems) for split, problems in build(config, load(config.tokenizer, config.root)).items()}

    return call


@pytest.fixture(scope="session")
def stories(data_root: Path) -> Any:
    """Task and split -> what the official files tell there."""

    def call(task: int, split: str) -> list[Told]:
        folder = data_root / "babi"
        if split == "test":
            return told_in(folder / "test_part" / f"{NAMES[task]}_test_part.txt.gz")
        return told_in(folder / "en" / f"{NAMES[task]}_train.txt.gz")

    return call


def owners(text: str, books: dict[str, str]) -> list[str]:
    """The books that a text is from: those that hold it word for word, or two where it goes over to the next."""
    if whole := [name for name, book in books.items() if text in book]:
        return whole
    places = [place.end() for place in re.finditer(r" ", text)]
    for place in places:
        first = [name for name, book in books.items() if text[:place].strip() in book]
        if not first:
            break
        if second := [name for name, book in books.items() if name not in first and book.startswith(text[place:][:60])]:
            assert any(text[place:] in books[name] for name in second)
            return [first[0], second[0]]
    raise AssertionError(f"in no book: {text[:200]!r}")


def check_haystack(segments: list[str], facts: list[str], books: dict[str, str]) -> set[str]:
    """Without its facts the context is from books; which."""
    found: set[str] = set()
    last: list[str] = []
    for text in segments:
        for fact in facts:
            text = text.replace(fact, "\0", 1)
        for piece in filter(None, (part.strip() for part in text.split("\0"))):
            last = [name for name in last if piece in books[name]] or owners(piece, books)
            found.add(last[-1])
            last = last[-1:]
    return found


def check_told(problem: Problem, facts: tuple[str, ...], there: list[Told], task: int) -> Told:
    """The story is one of the file's, question and answer with it; the answer follows from the facts alone."""
    (question,) = problem.questions
    asked = (facts, question.text, question.answers[0])
    told = next(each for each in there if (each.facts, each.question, each.answer) == asked)
    derived = solve(told.question, told.facts)
    assert derived == told.answer or (task == 5 and solve(told.question, told.support) == told.answer)
    return told


def check_support(problem: Problem, told: Told) -> None:
    """The supporting facts are those of the file; they stand in the segments that are named, which have one each."""
    (question,) = problem.questions
    assert [text.partition(": ")[2] if "Event" in text else text for text in question.support] == list(told.support)
    named = [problem.segments[place] for place in question.gold]
    assert all(any(text in segment for segment in named) for text in question.support)
    assert all(any(text in segment for text in question.support) for segment in named)


def without_facts(segments: list[str]) -> list[str]:
    return [" ".join(EVENT.sub("", text).split()) for text in segments]


def tokens_of(segments: list[str], qwen: Any) -> int:
    return sum(len(ids) for ids in qwen(segments, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("task", NAMES)
def test_an_8k_set_holds_what_the_files_tell(
    sets: Any, stories: Any, books: dict[str, str], qwen: Any, task: int
) -> None:
    """Facts in the order of the text and of each character's index, on top of 8K tokens of books."""
    read: dict[str, set[str]] = defaultdict(set)
    seen: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for split, problems in sets(task).items():
        assert len(problems) == COUNT[split]
        for problem in problems:
            segments = list(problem.segments)
            events = [(found[0], *found.groups()) for text in segments for found in EVENT.finditer(text)]
            counts: dict[str, int] = defaultdict(int)
            for _, name, number, fact in events:
                assert fact.startswith(name or "The ") and int(number) == counts[name]
                counts[name] += 1
            facts = tuple(fact for *_, fact in events)
            check_support(problem, check_told(problem, facts, stories(task, split), task))
            read[split] |= check_haystack(segments, [whole for whole, *_ in events], books)
            seen[split].add(facts)
            assert tokens_of(without_facts(segments), qwen) == pytest.approx(LENGTH, rel=0.01)
            assert problem.tokens == tokens_of(segments, qwen)
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not read[one] & read[other], "books"
        assert not seen[one] & seen[other], "stories"


@pytest.mark.parametrize("task", [2, 3])
def test_drawn_facts_are_in_order_by_their_index(
    sets: Any, stories: Any, books: dict[str, str], qwen: Any, task: int
) -> None:
    """One count over the story, facts anywhere: sorted by it they are a story of the file."""
    moved = 0
    for split, problems in sets(task, "data.babilong.index=story", "data.babilong.order=drawn").items():
        for problem in problems:
            segments = list(problem.segments)
            events = [(int(found[2]), found[3], found[0]) for text in segments for found in EVENT.finditer(text)]
            assert sorted(number for number, *_ in events) == list(range(len(events)))
            moved += events != sorted(events)
            facts = tuple(fact for _, fact, _ in sorted(events))
            check_support(problem, check_told(problem, facts, stories(task, split), task))
            check_haystack(segments, [whole for *_, whole in events], books)
            assert tokens_of(without_facts(segments), qwen) == pytest.approx(LENGTH, rel=0.01)
    assert moved, "they were drawn"


@pytest.mark.parametrize("task", [1, 2, 3])
def test_the_official_kind_has_its_facts_within_8k_in_the_order_of_the_text(
    sets: Any, stories: Any, books: dict[str, str], qwen: Any, task: int
) -> None:
    """No index: each fact stands behind the one before it, and nothing but books is around them."""
    for split, problems in sets(task, "data.babilong.budget=inside", "data.babilong.index=none").items():
        for problem in problems:
            (question,) = problem.questions
            text = "\n".join(problem.segments)
            there = [
                told
                for told in stories(task, split)
                if (told.question, told.answer) == (question.text, question.answers[0])
                and re.search(".*".join(map(re.escape, told.facts)), text, re.DOTALL)
            ]
            assert there, "facts in the order of the text"
            told = max(there, key=lambda each: len(each.facts))
            check_support(problem, check_told(problem, told.facts, there, task))
            check_haystack(list(problem.segments), list(told.facts), books)
            assert tokens_of(list(problem.segments), qwen) == pytest.approx(LENGTH, rel=0.01)
