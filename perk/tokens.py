"""Counting tokens: what a context's length is measured in."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from common.data.dataroot import ENDINGS, find
from common.data.textfile import read_text
from common.errors import UserError

WORDS = "words"
_WORD = re.compile(r"\w+|[^\w\s]")
# Both cut text before any merge; Qwen's lets digits stand alone, GPT-2's takes a whole number.
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Tokens(Protocol):
    """Counts tokens of texts."""

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones left out."""
        ...


class Words:
    """A token is a word, a number or a sign: for generated English, and where no vocabulary is at hand."""

    @staticmethod
    def words(text: str) -> list[str]:
        """The tokens themselves."""
        return _WORD.findall(text)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """As `Tokens`."""
        return [len(self.words(text)) for text in texts]


class Subwords:
    """A tokenizer of the library `tokenizers`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def counts(self, texts: Sequence[str]) -> list[int]:
        """As `Tokens`."""
        return [len(found) for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def load(name: str, root: str | None) -> Tokens:
    """`words`, a folder with tokenizer.json or with vocab.json and merges.txt (packed or not), or a hub name.

    Raises:
        UserError: nothing of that name is at hand, or its files are damaged.
    """
    if name == WORDS:
        return Words()
    from tokenizers import Tokenizer

    try:
        folder = find(root, name, "use data.tokenizer=words")
    except UserError as error:
        return _of_hub(name, error)
    try:
        if (whole := folder / "tokenizer.json").is_file():
            return Subwords(Tokenizer.from_file(str(whole)))
        return Subwords(_of_vocabulary(folder))
    except UserError:
        raise
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"data.tokenizer={name}: damaged files in {folder} ({error}); copy them again") from error


def _of_vocabulary(folder: Path) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = json.loads(read_text(_packed(folder, "vocab.json")))
    lines = read_text(_packed(folder, "merges.txt")).splitlines()
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(left, right) for left, _, right in pairs]))
    if "10" in vocabulary:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        cut = pre_tokenizers.Split(Regex(QWEN), behavior="isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, to_bytes])
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _packed(folder: Path, name: str) -> Path:
    for ending in ENDINGS:
        if (path := folder / f"{name}{ending}").is_file():
            return path
    raise UserError(f"data.tokenizer: {folder} holds neither tokenizer.json nor {name}; put the files there")


def _of_hub(name: str, missing: UserError) -> Tokens:
    """A tokenizer that was fetched before; nothing is downloaded here."""
    from huggingface_hub import try_to_load_from_cache
    from tokenizers import Tokenizer

    found = try_to_load_from_cache(name, "tokenizer.json") if name.count("/") == 1 else None
    if not isinstance(found, str):
        raise UserError(
            f"data.tokenizer={name}: neither a folder ({missing}) nor in the hub's cache; give a folder with "
            "tokenizer.json, or fetch it once where the hub can be reached (python -m scripts.fetch <name> <folder>)"
        )
    return Subwords(Tokenizer.from_file(found))
