"""What `--help` shows: what a command does, and every choice of its configuration."""

import importlib.resources
import re
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import yamltext

WIDTH = 120
APPENDED = ("experiment", "sweep")
"""Groups of a command that makes runs which its defaults list lacks: they are chosen with a plus sign."""
ENDING = """\
A key is set by its full name, as seed=1; `--cfg job` shows every key with its value. `-m` runs a sweep: seed=1,2,3.
`--hydra-help` shows Hydra's own flags, `--info` where a configuration comes from."""


def usage(purpose: str, config: str, name: str) -> str:
    """The text of `--help`.

    Args:
        purpose: what the command does, and examples; the docstring of its module.
        config: package of its primary config, as `pkg://conf.<paper>`.
        name: of the primary config.
    """
    found, chosen = choices(config, name), _defaults(config, name)
    lines = []
    for group in sorted(found):
        word = f"+{group}" if group in APPENDED else group
        word += f" ({chosen[group]})" if chosen.get(group) else ""
        first, rest = f"  {word:22} ", " " * 25
        names = ", ".join(found[group])
        lines.append(textwrap.fill(names, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False))
    heading = "Groups, chosen as group=name, those with a plus sign as +group=name; in brackets what is chosen without:"
    shown = re.sub(r"^ *(?=python -m )", "    ", purpose.strip(), flags=re.MULTILINE)  # ruff moves some to the margin
    return "\n".join([shown, "", heading, *lines, "", ENDING, ""])


def choices(config: str, name: str) -> dict[str, list[str]]:
    """Group -> names, of all folders that the primary config searches, as far as the command can choose from them: the
    groups of its defaults list, experiments and sweeps of its own folder if it makes runs, and Hydra's.
    """
    primary, groups = _primary(config, name), _defaults(config, name)
    found: dict[str, set[str]] = defaultdict(set)
    for package in (config, *primary["hydra"]["searchpath"]):
        folder = _folder(package)
        own = APPENDED if package == config and "run" in primary["defaults"] else ()
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group.partition("/")[0] in {*groups, *own, "hydra"}:
                found[group].add(path.stem)
    return {group: sorted(names) for group, names in found.items()}


def _defaults(config: str, name: str) -> dict[str, str | None]:
    """Group -> what the primary config chooses."""
    entries = [entry for entry in _primary(config, name)["defaults"] if isinstance(entry, dict)]
    return {group.removeprefix("optional "): chosen for entry in entries for group, chosen in entry.items()}


def _primary(config: str, name: str) -> dict[str, Any]:
    path = _folder(config) / f"{name}.yaml"
    return dict(yamltext.load(path.read_bytes(), path))


def _folder(package: str) -> Path:
    return Path(str(importlib.resources.files(package.removeprefix("pkg://"))))
