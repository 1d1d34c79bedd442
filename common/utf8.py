"""Texts and paths are UTF-8, whatever the locale."""

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def ensure() -> None:
    """Where the locale cannot say every character (`LC_ALL=C` without Python's UTF-8 mode), start this command of ours
    again in UTF-8 mode: paths of the command line, output, and whatever libraries open are then UTF-8.

    Does nothing in a process that is no command of this repository, such as a test runner.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    own = spec is not None and (CHECKOUT / spec.name.partition(".")[0]).is_dir()
    if own and not sys.flags.utf8_mode and sys.getfilesystemencoding().replace("-", "").lower() != "utf8":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
