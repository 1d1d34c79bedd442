"""Arrays of an .npz archive."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.packed import DAMAGE, members
from common.errors import UserError

AGAIN = "copy or download it again"


def arrays(path: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz archive by their names, the optional ones where they are there; nothing is unpickled.

    Raises:
        UserError: the archive is damaged, cannot be read or lacks one.
    """
    names = tuple(names)
    try:
        held = members(path)
        there = [*names, *(name for name in optional if f"{name}.npy" in held)]
        return {name: np.lib.format.read_array(io.BytesIO(held[f"{name}.npy"]), allow_pickle=False) for name in there}
    except KeyError as error:
        raise UserError(f"{path}: no part {error} in it; of {', '.join(names)} all are needed") from error
    except (*DAMAGE, ValueError, MemoryError, RuntimeError) as error:
        raise UserError(f"{path}: damaged archive ({error}); {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
