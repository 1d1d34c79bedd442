"""Frozen parts of a pretrained pipeline, from a folder or the hub's local cache; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError

FILES = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "vocab.json",
}
"""Part of a pipeline -> the file that a folder of that part alone has."""


def loaded(kind: Any, path: str, key: str, part: str) -> Any:
    """`kind.from_pretrained` of a pipeline's `part`, or of a folder that holds that part alone.

    Args:
        kind: a class of diffusers or transformers.
        path: a folder, or a name on the hub whose files are in the local cache.
        key: where `path` was set, for messages.
        part: the pipeline's folder of it.

    Raises:
        UserError: there is no such folder, or it holds no such part.
    """
    folder = Path(path).expanduser()
    if path.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"{key}={path}: there is no such folder; correct the path, or give a hub name")
    alone = folder.is_dir() and not (folder / part).is_dir() and (folder / FILES[part]).is_file()
    where = {} if alone else {"subfolder": part}
    try:
        return kind.from_pretrained(str(folder) if folder.is_dir() else path, local_files_only=True, **where)
    except (OSError, ValueError, TypeError) as error:
        said = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"{key}={path}: no {part} that can be read ({said}); give the folder of a diffusers pipeline with {part}/ "
            "in it, or fetch the pipeline once on a machine with a network and give that folder"
        ) from error
