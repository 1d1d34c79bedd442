"""Settings that were composed before, by the digest of what they say, kept below the runs that they are looked for in.

Tables are printed again and again while runs come in, and composing takes Hydra longer than reading hundreds of runs.
What was kept counts until a file that decides a setting changes.
"""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import jsontext
from common.run.files import write_atomic
from common.run.results import DAMAGED
from common.tables.cells import Overrides

FILE = ".settings.json"
PACKAGES = ("conf", "common", "hydra_plugins")
"""What decides a setting besides the papers' own packages."""
LIBRARIES = ("hydra-core", "omegaconf", "PyYAML")
ENVIRONMENT = re.compile(rb"\boc\.env:(\w+)")
Which = tuple[str, str, str, Overrides]
"""Paper, command, scale and words of a setting."""
log = logging.getLogger(__name__)


def digest_of(keys: Mapping[str, Any]) -> str:
    """What tells settings apart: of dotted keys and their values."""
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


@contextmanager
def kept(root: Path, papers: Sequence[str], composed: dict[Which, str]) -> Iterator[None]:
    """Within this block `composed` also has what was composed before; at its end what is new is kept below `root`.

    A folder that cannot be written keeps nothing, and a damaged file counts as none.
    """
    path, deciding = root / FILE, _deciding(papers)
    composed |= _read(path, deciding)
    known = len(composed)
    yield
    if len(composed) == known:
        return
    entries = [[*which[:3], list(which[3]), digest] for which, digest in composed.items()]
    try:
        write_atomic(path, json.dumps({"deciding": deciding, "settings": entries}) + "\n")
    except OSError as error:
        log.debug("%s: not kept (%s)", path, error)


def _read(path: Path, deciding: str) -> dict[Which, str]:
    try:
        found = jsontext.mapping(path.read_bytes())
        if found["deciding"] != deciding:
            return {}
        return {
            (str(paper), str(command), str(scale), tuple(map(str, words))): str(digest)
            for paper, command, scale, words, digest in found["settings"]
        }
    except (OSError, *DAMAGED):
        return {}


def _deciding(papers: Sequence[str]) -> str:
    """Digest of all files, versions and variables that a composed setting can depend on."""
    found = hashlib.sha256()
    variables: set[bytes] = set()
    for path in sorted({*_files((*PACKAGES, *papers))}):
        content = path.read_bytes()
        variables.update(ENVIRONMENT.findall(content))
        found.update(f"{path}\0{len(content)}\0".encode() + content)
    rest = [sys.version, os.getcwd(), *(f"{name}={version(name)}" for name in LIBRARIES)]
    rest += [f"{name}={os.environ.get(name)}" for name in sorted(map(bytes.decode, variables))]
    found.update("\0".join(rest).encode())
    return found.hexdigest()


def _files(packages: Sequence[str]) -> Iterator[Path]:
    for package in packages:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for folder, _, names in os.walk(os.path.abspath(place)):
                yield from (Path(folder, name) for name in names if name.endswith((".py", ".yaml")))
