"""Where a run's folder lies, from the command line's words and the schema: the resolvers of conf/common/run.yaml."""

import hashlib
import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from common.fields import is_named
from common.run.schema import schema_in

LONGEST = 200
"""Bytes of a name: disks take 255, and names made of it (`evaluation-`, `.tmp-`) need some more."""
SWEEP = "sweep"
"""A group that only says which runs; what they are, their own words say."""


def run_name(words: Iterable[str], schema: type) -> str:
    """Name of a run's folder: the overrides that make the run what it is, sorted, such as `method-ft_icr+seed-1`.

    Args:
        words: overrides of the command line, but for Hydra's own.
        schema: dataclass of the configuration, whose fields say what is no part of the name (`common.fields`).
    """
    return file_name("+".join(sorted(word for word in words if _named(word, schema))).replace("=", "-"))


def file_name(text: str) -> str:
    """`text` as the name of a file or folder.

    Never empty, short enough for any disk, and without the characters that Hydra or a shell would want quoted, so that
    `run=<folder>` can be typed as it is shown.
    """
    name = re.sub(r"[^\w.+-]+", "_", text).strip("_") or "default"
    if len(name.encode()) <= LONGEST:
        return name
    start = name.encode()[: LONGEST - 20].decode(errors="ignore")  # a character is whole or not there
    return f"{start}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:12]}"


def paper_of(schema: type) -> str:
    """The package that a schema lies in: `a` for `a.config.TrainConfig`."""
    return schema.__module__.rpartition(".")[0].rpartition(".")[2]


def _named(word: str, schema: type) -> bool:
    key = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return key != SWEEP and is_named(key, schema)


def _run_name(*, _root_: DictConfig) -> str:
    return run_name(_root_.hydra.overrides.task, schema_in(_root_))


def _paper(*, _root_: DictConfig) -> str:
    return paper_of(schema_in(_root_))


OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
OmegaConf.register_new_resolver("paper", _paper, replace=True)
