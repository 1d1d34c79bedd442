"""What the commands of this folder share: their key=value words, and mistakes as one line with an exit code."""

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from common import utf8
from common.errors import UserError

USER_ERROR = 2
"""Exit code of a mistake in what the user gave."""


def values_of(words: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
    """The values of key=value words by their keys; of a key that comes again the last.

    Raises:
        UserError: a word of another form, or with none of the `keys`.
    """
    given = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            raise UserError(f"{word}: write {', '.join(f'{name}=<...>' for name in keys)}; --help shows examples")
        given[key] = value
    return given


def split_off(words: Iterable[str], keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words with one of the `keys` (or of another form, for `values_of` to refuse), and key=value words of others."""
    own: list[str] = []
    others: list[str] = []
    for word in words:
        key, equals, _ = word.partition("=")
        (others if equals and key not in keys else own).append(word)
    return own, others


@contextmanager
def mistakes_told(code: int = USER_ERROR) -> Iterator[None]:
    """Turn a `UserError` into its message and an exit code."""
    utf8.ensure()
    try:
        yield
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(code) from error


def dispatch(name: str, purpose: str, commands: Mapping[str, tuple[str, str]], example: str) -> None:
    """Run `python -m scripts.<name> <command> ...`: the `main(words)` of the module that `commands` names.

    Args:
        name: the product's folder.
        purpose: one line for `--help`.
        commands: command -> (module, one line of what it does).
        example: a whole command line.
    """
    utf8.ensure()
    width = max(map(len, commands)) + 2
    lines = [f"  {command:{width}}{line}" for command, (_, line) in commands.items()]
    usage = f"usage: python -m scripts.{name} {{{','.join(commands)}}} ...\n"
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        sys.stdout.write("\n".join([usage, purpose, "", *lines, "", f"for example: {example}", ""]))
        return
    if given[0] not in commands:
        sys.stderr.write(f"{usage}error: {given[0]}: choose from {', '.join(commands)}\n")
        raise SystemExit(USER_ERROR)
    importlib.import_module(commands[given[0]][0]).main(given[1:])
