"""Trained weights in the form that plain Hugging Face code reads."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.errors import UserError
from common.run.files import sync_tree
from common.run.swap import new_folder


def export(folder: Path, *parts: Any) -> None:
    """Write `parts` (a model, its tokenizer: what has `save_pretrained`) into `folder`, all or nothing.

    An older export is replaced. `AutoModelForCausalLM.from_pretrained(folder)` then gives the same model without any
    code of ours.

    Raises:
        UserError: the disk is full or the place not writable.
    """
    try:
        write(folder, *parts)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the trained model into {folder}: {error}; free space there or set loop.root to a bigger "
            "disk, then run the same command again and it continues"
        ) from error


def write(folder: Path, *parts: Any) -> None:
    """As `export`, with the error for the caller to put into words; an older `folder` goes as a whole, once the new
    one is on the disk.

    Raises:
        OSError, SafetensorError: the disk is full or the place not writable; `folder` is as before.
    """
    with new_folder(folder) as temporary:
        for part in parts:
            part.save_pretrained(str(temporary))
        sync_tree(temporary)
