"""What a run does to its folder and its process before the first step."""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.run import environment, seeding
from common.run.entry import sweep_name
from common.run.files import remove_temporaries, write_atomic
from common.run.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, LogFile, lock, read_environment
from common.run.results import RunIdentity, Selection
from common.run.schema import RuntimeConfig

log = logging.getLogger(__name__)


def open_folder(
    stack: ExitStack,
    folder: Path,
    config: Mapping[str, Any],
    runtime: RuntimeConfig,
    identity: RunIdentity,
    selection: Selection,
) -> tuple[LogFile, dict[str, Any]]:
    """Make `folder` and hold it for this process, let `log.txt` in it grow, seed every generator, and write
    `config.yaml` and `environment.json`; returns the log and the content of the latter.

    `stack` gives the process back as it was; each undoing is registered before the next step can fail.

    Raises:
        UserError: another process holds the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock(folder))
        file = LogFile(folder)
        stack.callback(file.detach)
        file.attach()
        remove_temporaries(folder)
        remove_temporaries(folder / CHECKPOINTS)
        stack.enter_context(seeding.applied(runtime, identity.seed))
        # a run of several tables belongs to the sweep that started it first
        sweep = read_environment(folder).get("sweep") or sweep_name()
        found = {**environment.describe(), "run": asdict(identity), "selection": asdict(selection), "sweep": sweep}
        write_atomic(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        write_atomic(folder / ENVIRONMENT, json.dumps(found, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; free space there or set loop.root") from error
    who = identity
    log.info("%s/%s %s, scale %s, seed %d", who.paper, who.experiment, who.method, who.scale, who.seed)
    return file, found
