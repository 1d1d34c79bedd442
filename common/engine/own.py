"""Which code is the user's, and which is of Python, of installed packages and of the engine."""

import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

import torch


@cache
def _folders() -> frozenset[str]:
    """Of Python, of packages and of the engine."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return frozenset([*paths, *site.getsitepackages(), str(Path(torch.__file__).parent), str(Path(__file__).parent)])


@cache
def installed(file: str) -> bool:
    """Whether code of this file is none of the user's."""
    if file.startswith("<"):  # <stdin>, <string> of python -c and a notebook's cells are
        return file.startswith(("<frozen", "<__array_function__", "<eval_with_key>"))
    return any(Path(file).is_relative_to(folder) for folder in _folders())


@cache
def packaged(module: str) -> bool:
    """Whether the module of this name is none of the user's."""
    if module == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return module in sys.builtin_module_names or (file is not None and installed(file)) or module == "builtins"
