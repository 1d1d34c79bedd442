"""Problems: a long context in segments, and the questions asked about it."""

import json
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from common.errors import UserError
from common.run.files import write_json_lines


@dataclass(frozen=True)
class Question:
    """One question about a context.

    `answers` are the accepted ones; the first is what a learner is trained to say. `support` are the sentences that
    give it, as they stand in the context, in the order to recite them; `gold` the segments that hold them. Both are ()
    where not known. `kind` is what tables are split by.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    kind: str
    support: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()


@dataclass(frozen=True)
class Problem:
    """One context with its questions.

    `sources` are keys of whatever must not be in another split too: story, book, records, passages. `tokens` counts
    all segments with `data.tokenizer`; of them, `added` stand on top of the budget `data.length`. `labels` are the
    numbers that the segments are given; () counts from 0. Problems of one `group` ask about the same thing (a story, a
    database), so their answers are not independent; "" is a group of its own.

    Raises:
        ValueError: no segments, an empty one, no questions, or a gold segment that is not there.
    """

    id: str
    segments: tuple[str, ...]
    questions: tuple[Question, ...]
    sources: tuple[str, ...]
    tokens: int
    added: int = 0
    labels: tuple[int, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        if not self.segments or "" in self.segments or not self.questions:
            raise ValueError(f"problem {self.id}: {len(self.segments)} segments, {len(self.questions)} questions")
        for question in self.questions:
            if not question.answers or any(not 0 <= place < len(self.segments) for place in question.gold):
                raise ValueError(f"question {question.id}: answers {question.answers}, gold {question.gold}")


class Made(Sequence[Problem]):
    """Problems that are made when they are asked for; number `i` depends on what `make` is given, `i`, alone.

    So a split of any length takes no memory, and any worker can make any problem.
    """

    def __init__(self, count: int, make: Callable[[int], Problem]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """One problem; a slice gives a list.

        Raises:
            IndexError: past the end.
        """
        if isinstance(index, slice):
            return [self._make(place) for place in range(*index.indices(self._count))]
        return self._make(range(self._count)[index])


class Kept(Made):
    """Problems in a JSON-lines file, read when they are asked for; only places and check sums of the lines are in
    memory.

    Raises:
        UserError: a line has changed since the file was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._starts, self._sums = path, array("q", [0]), array("L")
        with path.open("rb") as file:
            for line in file:
                self._starts.append(self._starts[-1] + len(line))
                self._sums.append(crc32(line))
        super().__init__(len(self._sums), self._read)

    def _read(self, index: int) -> Problem:
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        if crc32(line) != self._sums[index]:
            raise UserError(f"{self.path}:{index + 1}: has changed since it was opened; run the same command again")
        return from_json(json.loads(line))


def keep(path: Path, problems: Sequence[Problem]) -> Kept:
    """Write a split, one problem at a time in memory, and open what was written."""

    def records() -> Iterator[dict[str, Any]]:
        return (asdict(problem) for problem in problems)

    write_json_lines(path, records())
    return Kept(path)


def relabelled(problem: Problem, rng: random.Random) -> Problem:
    """The same problem with the numbers of its segments in an order drawn from `rng`."""
    count = len(problem.segments)
    return replace(problem, labels=tuple(rng.sample(range(count), count)))


def from_json(value: Mapping[str, Any]) -> Problem:
    """Inverse of `dataclasses.asdict`, through JSON.

    Raises:
        ValueError: the value is no stored problem.
    """
    try:
        questions = tuple(
            Question(q["id"], q["text"], tuple(q["answers"]), q["kind"], tuple(q["support"]), tuple(q["gold"]))
            for q in value["questions"]
        )
        lists = (tuple(value["segments"]), questions, tuple(value["sources"]))
        return Problem(value["id"], *lists, value["tokens"], value["added"], group=value["group"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a stored problem ({error!r})") from error
