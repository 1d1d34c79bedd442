"""Where the long text comes from: our grammar, plain text files, or a source that `datasets` reads.

Each is a list of documents per split; no document, or piece of one, is in two splits.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from common.data.dataroot import find
from common.data.splits import BUCKETS, cut, digest
from common.data.textfile import read_text
from common.errors import UserError
from perk.babilong import grammar
from perk.babilong.config import HaystackConfig
from perk.babilong.sentences import paragraphs_of, sentences_of

TEXTS = (".txt", ".md")
TABLES = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv"}
SHARES = {split: len(buckets) / 16 for split, buckets in BUCKETS.items()}
"""Of the texts, whatever `data.shares` says of the stories."""
FEW, PIECES = 8, 16
"""With fewer documents than FEW each is cut into PIECES, so that every split gets some of each."""
MANY = 2**40
KEPT = 64
"""Documents kept in memory as sentences."""


class Haystack(Protocol):
    """Documents, numbered from 0 in each split."""

    def size(self, split: str) -> int:
        """How many documents a split has."""
        ...

    def document(self, split: str, number: int) -> tuple[str, tuple[str, ...]]:
        """Its name, unique over all splits, and its sentences in order."""
        ...


def walk(haystack: Haystack, split: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(document, sentence), from a random sentence of a random document on through the following documents; ends where
    every document of the split has been read once."""
    size = haystack.size(split)
    first = rng.randrange(size)
    name, told = haystack.document(split, first)
    start = rng.randrange(len(told)) if told else 0
    yield from ((name, sentence) for sentence in told[start:])
    for number in range(first + 1, first + size):
        name, told = haystack.document(split, number % size)
        yield from ((name, sentence) for sentence in told)


class Grammar:
    """Generated English without an end."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def size(self, split: str) -> int:
        """As `Haystack`."""
        return MANY

    def document(self, split: str, number: int) -> tuple[str, tuple[str, ...]]:
        """As `Haystack`."""
        return f"grammar:{split}:{number}", grammar.document(self._seed, split, number)


class Files:
    """Plain text files; read when first needed."""

    def __init__(self, paths: list[Path], seed: int) -> None:
        pieces = PIECES if len(paths) < FEW else 1
        above = os.path.commonpath([path.parent for path in paths])
        names = {path: path.relative_to(above).as_posix() for path in paths}
        whole = {f"{names[path]}#{piece}": (path, piece, pieces) for path in paths for piece in range(pieces)}
        self._places: dict[str, list[tuple[str, tuple[Path, int, int]]]] = defaultdict(list)
        split_of = cut(whole, SHARES, seed, "texts, or pieces of one,")
        for name, place in whole.items():
            self._places[split_of[name]].append((name, place))

    def size(self, split: str) -> int:
        """As `Haystack`."""
        return len(self._places[split])

    def document(self, split: str, number: int) -> tuple[str, tuple[str, ...]]:
        """As `Haystack`."""
        name, (path, piece, pieces) = self._places[split][number]
        told = _sentences(path)
        return name, told[len(told) * piece // pieces : len(told) * (piece + 1) // pieces]


@lru_cache(maxsize=KEPT)
def _sentences(path: Path) -> tuple[str, ...]:
    found = tuple(s for paragraph in paragraphs_of(read_text(path)) for s in sentences_of(paragraph))
    if not found:
        raise UserError(f"{path}: no sentence in it; give a file with running text")
    return found


class Rows:
    """Rows of a data set that `datasets` reads; row r of every 16 belongs to one split."""

    def __init__(self, rows: Any, column: str, name: str) -> None:
        if column not in rows.column_names:
            raise UserError(f"data.babilong.haystack.column={column}: {name} has the columns {rows.column_names}")
        if len(rows) < FEW * PIECES:
            raise UserError(
                f"data.babilong.haystack.source={name}: {len(rows)} rows; at least {FEW * PIECES} are needed"
            )
        self._rows, self._column, self._name = rows, column, name

    def size(self, split: str) -> int:
        """As `Haystack`."""
        return len(self._rows) // 16 * len(BUCKETS[split])

    def document(self, split: str, number: int) -> tuple[str, tuple[str, ...]]:
        """As `Haystack`."""
        block, place = divmod(number, len(BUCKETS[split]))
        row = block * 16 + BUCKETS[split][place]
        text = self._rows[row][self._column]
        if not isinstance(text, str):
            raise UserError(f"{self._name}: row {row}: {self._column} holds {type(text).__name__}, no text")
        return f"{self._name}:{row}", tuple(s for paragraph in paragraphs_of(text) for s in sentences_of(paragraph))


def open_haystack(config: HaystackConfig, root: str | None, seed: int) -> Haystack:
    """The haystack that the settings name.

    Raises:
        UserError: it is not there, or holds no text.
    """
    if config.source is None:
        return Grammar(seed)
    try:
        path = find(root, config.source, "use generated text: data.babilong.haystack.source=null")
    except UserError as missing:
        return _of_hub(config, missing)
    paths = texts_at(path)
    if paths:
        return Files(paths, seed)
    return Rows(_rows_at(path, config), config.column, digest(str(config.source)))


def texts_at(path: Path) -> list[Path]:
    """The text file, or those below a folder, sorted; packed ones count."""

    def is_text(file: Path) -> bool:
        name = file.with_suffix("") if file.suffix in (".gz", ".xz") else file
        return file.is_file() and name.suffix.lower() in TEXTS

    return [path] if is_text(path) else sorted(file for file in path.rglob("*") if is_text(file))


def _rows_at(path: Path, config: HaystackConfig) -> Any:
    import datasets

    datasets.disable_progress_bars()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in TABLES)
    try:
        if path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            kept = datasets.load_from_disk(str(path))
            return kept[config.split] if isinstance(kept, datasets.DatasetDict) else kept
        if files and files[0].suffix in TABLES:
            names = [str(file) for file in files if file.suffix == files[0].suffix]
            return datasets.load_dataset(TABLES[files[0].suffix], data_files=names, split="train")
    except Exception as error:  # the library and what lies below it raise many kinds
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"data.babilong.haystack.source={path}: cannot be read ({reason})") from error
    raise UserError(
        f"data.babilong.haystack.source={path}: neither text ({', '.join(TEXTS)}, packed or not) nor rows "
        f"({', '.join(TABLES)}, or what datasets' save_to_disk writes)"
    )


def _of_hub(config: HaystackConfig, missing: UserError) -> Haystack:
    """Rows of a hub data set that was fetched before; nothing is downloaded here."""
    name = str(config.source)
    if name.count("/") != 1 or name.startswith((".", os.sep, "~")):
        raise missing
    import datasets

    datasets.disable_progress_bars()
    set_offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True  # a DownloadConfig of local files alone still asks the hub
    try:
        rows = datasets.load_dataset(name, config.subset, split=config.split)
    except Exception as error:  # the library and what lies below it raise many kinds
        raise UserError(
            f"data.babilong.haystack.source={name}: no file or folder ({missing}), and not in the cache of datasets; "
            "fetch it once where the hub can be reached, or name a folder of text files"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = set_offline
    return Rows(rows, config.column, name)
