"""Slow weights of a finished run in place of training them again: the same numbers sooner."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run import checkpoint
from common.run.folder import CHECKPOINTS
from common.run.results import hashed_keys
from common.run.schema import plain
from common.run.stored import stored_config
from slowfast_vgen.build import Parts
from slowfast_vgen.config import TrainConfig

DECIDING = ("seed", "data", "latents", "model", "diffusion", "slow", "runtime")
"""Groups of keys that slow learning depends on, besides what its clips are given (`OF_ITS_OWN`)."""
OF_ITS_OWN = ("method.past", "method.context", "method.copies")
"""Keys in which a method's slow weights are its own."""
SAMPLING = ("diffusion.steps", "diffusion.clip")
"""Keys among them that only a sample depends on."""
log = logging.getLogger(__name__)


def deciding(config: TrainConfig) -> dict[str, Any]:
    """Dotted key -> value of all that slow weights are a function of."""
    keys = hashed_keys(plain(config), TrainConfig)
    return {key: value for key, value in keys.items() if key.split(".")[0] in DECIDING and key not in SAMPLING}


def takes_over(config: TrainConfig) -> bool:
    """Are the slow weights of `slow.run` for this method? One that is given something else than that run's, such as one
    frame, trains its own, so that a sweep may name one run for all its rows; the log says so.

    Raises:
        UserError: there is no such run.
    """
    if config.slow.run is None:
        return False
    other = stored_config(Path(config.slow.run).expanduser(), TrainConfig)
    there, here = (hashed_keys(plain(each), TrainConfig) for each in (other, config))
    own = [key for key in OF_ITS_OWN if there.get(key) != here.get(key)]
    if own:
        log.info("slow.run=%s has another %s: its slow weights are not for this method", config.slow.run, own[0])
    return not own


def take_over(config: TrainConfig, parts: Parts) -> None:
    """Put the slow weights of the run `slow.run` into the parts, as they were after its last step of slow learning.

    Raises:
        UserError: no such run, one of other settings, or one that has not come that far or has gone on since.
    """
    folder = Path(config.slow.run or "").expanduser()
    there, here = deciding(stored_config(folder, TrainConfig)), deciding(config)
    for key in here | there:
        if there.get(key) != here.get(key):
            raise UserError(
                f"slow.run={folder}: {key} is {there.get(key)} there and {here.get(key)} here, so its slow weights "
                "would be others; give a run of equal settings, or slow.run=null to train them"
            )
    place = folder / CHECKPOINTS / checkpoint.name_of(config.slow.steps)
    if not place.is_dir():
        raise UserError(
            f"slow.run={folder}: no checkpoint of step {config.slow.steps}, the last one of slow learning; give a "
            "finished run of method=slow"
        )
    found = checkpoint.load(place)
    parts.latents.load_state_dict(found.objects["latents"])
    parts.slow.load_state_dict(found.objects["slow"])
    log.info("slow weights %s of %s", parts.slow.digest(), folder)
