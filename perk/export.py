"""Generated data as files in the official forms, which the readers take like real ones."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.data.splits import SPLITS
from common.errors import UserError
from common.run.files import write_json_lines, write_lines
from perk.apis import build as apis
from perk.babilong.simulator import tell
from perk.babilong.stories import lines_of
from perk.config import DataConfig, Task
from perk.documents import build as documents
from perk.documents.config import Kind
from perk.documents.items import Item, Passage
from perk.students.build import database_of
from perk.students.records import to_json
from perk.tokens import Tokens


def export(config: DataConfig, tokens: Tokens) -> Iterator[tuple[Path, int]]:
    """Write every split, one problem at a time in memory: bAbI text, student records, HotpotQA or TriviaQA questions,
    or whole problems of API retrieval. Yields (file, records).

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(str(config.export)).expanduser()
    for split in SPLITS:
        count = config.count[split]
        try:
            if config.task is Task.babilong:
                path = folder / f"qa{config.babilong.task}_{split}.txt"
                write_lines(path, _stories(config, split))
            else:
                path = folder / f"{config.task.value}_{split}.jsonl"
                write_json_lines(path, _records(config, tokens, split))
        except OSError as error:
            raise UserError(f"data.export={config.export}: {error.strerror}; name another folder") from error
        yield path, count


def _stories(config: DataConfig, split: str) -> Iterable[str]:
    mine = config.babilong
    for index in range(config.count[split]):
        yield from lines_of(tell(mine.world, mine.task, config.seed, split, index, config.questions))


def _records(config: DataConfig, tokens: Tokens, split: str) -> Iterable[dict[str, Any]]:
    if config.task is Task.students:
        yield from (to_json(database_of(config, tokens, split, index)) for index in range(config.count[split]))
    elif config.task is Task.documents:
        form = _hotpotqa if config.documents.kind is Kind.hotpotqa else _triviaqa
        yield from (form(documents.item_of(config, split, index)) for index in range(config.count[split]))
    else:
        for problem in apis.build(config, tokens)[split]:
            (question,) = problem.questions
            yield {
                "context": list(problem.segments),
                "location": question.kind,
                "question": question.text,
                "answer": question.answers[0],
            }


def _hotpotqa(item: Item) -> dict[str, Any]:
    def paragraph(passage: Passage) -> list[Any]:
        return [passage.title, [f"{part}." for part in passage.text.removesuffix(".").split(". ")]]

    return {
        "id": item.id,
        "question": item.question,
        "answer": item.answers[0],
        "type": item.kind,
        "supporting_facts": [[passage.title, 0] for passage in item.gold],
        "context": [paragraph(passage) for passage in (*item.gold, *item.others)],
    }


def _triviaqa(item: Item) -> dict[str, Any]:
    passages = [{"title": passage.title, "text": passage.text} for passage in (*item.gold, *item.others)]
    return {"id": item.id, "question": item.question, "answers": list(item.answers), "passages": passages}
