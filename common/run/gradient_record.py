"""`gradient.json` in a run folder: what the check of the outer gradient found before the first step.

    {"gradient_cosine": 0.9998, "metasmoothness": 0.97}

A run that is continued keeps it, and at the end `results.json` takes its place. Runs without inner steps, and those
whose check was not made, have no such file. A number is null where a gradient was not finite.
"""

import json
import math
from pathlib import Path

from common import jsontext
from common.errors import UserError
from common.run.files import write_atomic
from common.run.results import MEASURED

GRADIENT = "gradient.json"


def note(folder: Path, cosine: float, metasmoothness: float) -> None:
    """Write the two numbers.

    Raises:
        OSError: the disk is full; the file is as before.
    """
    numbers = (round(value, 6) if math.isfinite(value) else None for value in (cosine, metasmoothness))
    write_atomic(folder / GRADIENT, json.dumps(dict(zip(MEASURED, numbers, strict=True))) + "\n")


def drop(folder: Path) -> None:
    """Remove the file of a finished run, whose results have the numbers."""
    (folder / GRADIENT).unlink(missing_ok=True)


def read(folder: Path) -> dict[str, float | None]:
    """The numbers under the names that `results.json` has for them; empty if there are none.

    Raises:
        UserError: the file is not one of this version.
    """
    path = folder / GRADIENT
    if not path.is_file():
        return {}
    try:
        found = jsontext.mapping(path.read_bytes())
        return {key: None if found[key] is None else float(found[key]) for key in MEASURED}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not of this version ({error}); delete it: the results go without") from error
