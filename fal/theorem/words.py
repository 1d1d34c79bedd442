"""What the commands that read finished runs share: key=value words, and mistakes as one line with an exit code."""

import argparse
import sys
from collections.abc import Callable, Mapping

from common.errors import UserError

MISTAKE = 2
"""Exit code of a mistake in what the user gave, as of all commands."""


def obey(name: str, description: str | None, usual: Mapping[str, str], act: Callable[..., str]) -> None:
    """Print what `act` makes of the words of the command line, or say what is wrong.

    Args:
        name: of the module that is run.
        description: for `--help`.
        usual: key -> its value where no word gives another; `act` takes them by name.
        act: what is asked for.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = ", ".join(f"{key}=<default {value}>" for key, value in usual.items())
    parser.add_argument("words", nargs="*", metavar="key=value", help=text)
    given = dict(usual)
    try:
        for word in parser.parse_args().words:
            key, _, value = word.partition("=")
            if key not in usual or not value:
                raise UserError(f"{word}: give {' or '.join(f'{each}=<folder>' for each in usual)}, or nothing")
            given[key] = value
        sys.stdout.write(act(**given))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(MISTAKE)
