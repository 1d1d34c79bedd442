"""What lies in a model's folder: tensors that are the model's, in files that hold nothing else."""

from collections.abc import Iterable
from pathlib import Path

from common import jsontext
from common.engine.adapter import SETTINGS
from common.errors import UserError
from common.language.config import ModelConfig
from common.language.sources import WEIGHTS, source_of

PICKLED = (".bin", ".pt", ".pth")
"""Ends of the names of pickled weights."""
WHOLE = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
"""Types of safetensors that are no weight's."""


def check(config: ModelConfig) -> None:
    """Refuse a folder whose weights are an adapter's, or pickled without `model.pickled`; a hub name passes.

    Raises:
        UserError: it is one.
    """
    folder = Path(source_of(config.name))
    if (folder / SETTINGS).is_file():
        base = folder / "base" if (folder / "base").is_dir() else "<its base>"
        raise UserError(f"model.name={config.name}: it holds an adapter ({SETTINGS}); set model.name={base}")
    if not config.pretrained or config.pickled or not folder.is_dir():
        return
    shards = _shards(folder)
    pickled = [path.name for path in shards or sorted(folder.iterdir()) if path.name.endswith(PICKLED)]
    if pickled and (shards or not (folder / WEIGHTS).is_file()):
        raise UserError(
            f"model.name={config.name}: its weights are pickled ({pickled[0]}), which can hold code; save them as "
            f"{WEIGHTS} (save_pretrained does), or set model.pickled=true, which reads nothing but tensors of them"
        )


def whole_numbers(folder: Path, weights: Iterable[str]) -> list[str]:
    """Which of `weights` a folder stores as whole numbers, by their ends: heads and bodies name them differently."""
    from safetensors import safe_open

    found = []
    for path in _shards(folder) or [folder / WEIGHTS]:
        if path.suffix == ".safetensors" and path.is_file():
            with safe_open(path, "pt") as stored:
                found += [name for name in stored.keys() if stored.get_slice(name).get_dtype() in WHOLE]  # noqa: SIM118
    own = list(weights)
    return [name for name in found if any(f".{each}".endswith(f".{name}") for each in own)]


def _shards(folder: Path) -> list[Path]:
    """The files that an index names; none without one.

    Raises:
        UserError: it is damaged.
    """
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return []
    try:
        return [folder / name for name in sorted(set(jsontext.mapping(index.read_bytes())["weight_map"].values()))]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: damaged ({error!r}); copy the model's files again") from error
