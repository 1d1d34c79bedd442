"""Where a model and its tokenizer are loaded from."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from common.language.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = ("tiny", "tiny_stories", "small")
WEIGHTS = "model.safetensors"


def source_of(name: str, key: str = "model.name") -> str:
    """Embedded models lie inside this package; everything else is a folder, or a hub name and stays as it is.

    Raises:
        UserError: `name`, the value of `key`, looks like a folder and there is none.
    """
    if name in EMBEDDED:
        return str(files("common.language") / name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.absolute())  # it is written into adapters, which are loaded from elsewhere
    if name.startswith((".", "/", "~")):
        raise UserError(f"{key}={name}: there is no such folder; correct the path, or give a hub name such as gpt2")
    return name


def digest_of(file: Path) -> str:
    """The first 12 hexadecimal digits of the file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def check_digest(config: ModelConfig) -> None:
    """Hold the weights on disk against `model.digest`.

    Raises:
        UserError: they are other weights, or none.
    """
    if config.digest is None or not config.pretrained:
        return
    file = Path(source_of(config.name)) / WEIGHTS
    found = digest_of(file) if file.is_file() else "none"
    if found != config.digest:
        raise UserError(
            f"model.digest={config.digest}: the weights {file} have {found}; put back the file that belongs to it, set "
            f"model.digest={found} for a run from these weights, or model.pretrained=false for one from random weights"
        )


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer that `model.tokenizer`, or else `model.name`, stands for.

    Raises:
        UserError: its files are not there, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    key, name = ("model.tokenizer", config.tokenizer) if config.tokenizer else ("model.name", config.name)
    source = source_of(name, key)
    kind = {"tokenizer_type": "gpt2"} if _is_bare_gpt2(Path(source)) else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False, **kind)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{key}={name}: no tokenizer ({first_line(error)}); put its files (for GPT-2 vocab.json and merges.txt) "
            "with the weights into a local folder and set model.name=<folder>; or fetch both once on a machine with a "
            "network (python -m scripts.fetch <name> <folder>); or run on the embedded model: scale=cpu"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{key}={name}: no end-of-text token; set eos_token in its tokenizer_config.json")
    return tokenizer


def _is_bare_gpt2(folder: Path) -> bool:
    """Is it a folder with GPT-2's two tokenizer files, and nothing beside them that names their kind?"""
    kinds = ("config.json", "tokenizer_config.json", "tokenizer.json")
    return all((folder / name).is_file() for name in ("vocab.json", "merges.txt")) and not any(
        (folder / name).is_file() for name in kinds
    )


def first_line(error: Exception) -> str:
    """The first line of a library's error, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")
