"""Where a model and its tokenizer are loaded from."""

from importlib.resources import files
from typing import TYPE_CHECKING

from common.errors import UserError
from reckoning.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED = "tiny"


def source_of(name: str) -> str:
    """`tiny` lies inside this package; everything else is a folder or a hub name and stays as it is."""
    return str(files("reckoning") / EMBEDDED) if name == EMBEDDED else name


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer that `model.tokenizer`, or else `model.name`, stands for.

    Raises:
        UserError: its files are not there, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    name = config.tokenizer or config.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source_of(name))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.tokenizer={name}: {first_line(error)}; give a folder with the tokenizer's files (for GPT-2: "
            "vocab.json and merges.txt), or run on the embedded model: scale=cpu"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.tokenizer={name}: it has no end-of-text token; set eos_token in tokenizer_config.json")
    return tokenizer


def first_line(error: Exception) -> str:
    """The first line of a library's error, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")
