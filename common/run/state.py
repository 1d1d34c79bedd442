"""All of a run that must survive a restart, and its way into checkpoints and back."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from common.errors import UserError
from common.run import checkpoint, seeding
from common.run.folder import CHECKPOINTS, ENVIRONMENT
from common.run.results import Selection, finished_hash

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """Whatever must survive a restart: modules, optimisers, schedules, data streams."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state as nested plain data and tensors, or as `checkpoint.Shards` of which a step changes few."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take a state back; shards come as `checkpoint.Shards`, read one at a time."""


def selected(run: Path) -> checkpoint.Checkpoint:
    """The checkpoint of the step that was the best on the dev split, in the folder `run`; no tensors are read yet.

    Raises:
        UserError: no step has been selected yet.
    """
    if finished_hash(run) is not None and not checkpoint.steps(run / CHECKPOINTS):
        raise UserError(
            f"run={run}: finished, and without weights: archives (python -m scripts.archive) keep none; to get them, "
            "run its training command again with loop.root=<another folder>, and evaluate that run"
        )
    last = checkpoint.latest(run / CHECKPOINTS, verified=False)
    if last is None or last.run["best"] is None:
        raise UserError(f"run={run}: no selected checkpoint yet; run its training command again and it continues")
    return checkpoint.load(run / CHECKPOINTS / checkpoint.name_of(int(last.run["best"]["step"])))


def put_back(found: checkpoint.Checkpoint, parts: Mapping[str, Stateful], run: Path, model: str) -> None:
    """Give `parts` the state that `found` has under their names.

    Raises:
        UserError: the state is damaged or does not fit, as the `model` behind the folder `run` has changed.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(found.objects[name])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"run={run}: its weights do not fit model.name={model} as it is now; put back the model that the run was "
            "trained from"
        ) from error


class RunState:
    """Steps done, the selected model, wall time, the global generators, and the objects that were added.

    Attributes: `step` (outer steps done, or being done), `best` (`{"step", "score"}` or None), `ended` (no step
    follows), `seconds` and `records` (wall time and metrics up to the checkpoint that was read).
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Begin at step 0 of the run in `folder`; its `keep` newest checkpoints stay."""
        self.folder = folder
        self.keep = keep
        self.step = 0
        self.best: dict[str, float] | None = None
        self.ended = False
        self.seconds = 0.0
        self.records = 0
        self._objects: dict[str, Stateful] = {}
        self._saved_step: int | None = None
        self._save_asked = False

    def add(self, name: str, entry: Stateful) -> None:
        """Make `entry` part of every checkpoint."""
        self._objects[name] = entry

    def select(self, score: float, by: Selection) -> bool:
        """Take this step's model for the best if `score` beats all before; its checkpoint is then due and stays."""
        if not math.isfinite(score) or (self.best is not None and not by.better(score, self.best["score"])):
            return False
        self.best = {"step": self.step, "score": float(score)}
        self._save_asked = True
        return True

    @property
    def save_asked(self) -> bool:
        """Was a new model selected since the last checkpoint?"""
        return self._save_asked

    def restore(self, device: torch.device) -> bool:
        """Take everything from the newest intact checkpoint, object by object; False if there is none.

        Raises:
            UserError: it does not fit the objects that were added, or there are checkpoints and none is intact.
        """
        folder = self.folder / CHECKPOINTS
        found = checkpoint.latest(folder)
        if found is None:
            if checkpoint.steps(folder):
                raise UserError(
                    f"{folder}: no checkpoint there can be read; delete the folder to start from the beginning"
                )
            return False
        self._load(found, self._objects)
        run = found.run
        self.step = self._saved_step = found.step
        self.best, self.ended, self.seconds, self.records = run["best"], run["ended"], run["seconds"], run["records"]
        if run["device"] != device.type:
            log.warning("began on %s, goes on on %s: the numbers will differ", run["device"], device.type)
        # last: loading may draw numbers
        seeding.set_rng_state(found.objects["rng"])
        return True

    def restore_best(self, names: Iterable[str]) -> int:
        """Put the objects `names` back to the selected model's state; returns its step, 0 if none was selected.

        Raises:
            UserError: its checkpoint is unreadable.
        """
        if self.best is None:
            return 0
        step = int(self.best["step"])
        self._load(checkpoint.load(self.folder / CHECKPOINTS / checkpoint.name_of(step)), names)
        return step

    def save(self, step: int, device: torch.device, seconds: float, records: int) -> bool:
        """Write the checkpoint of `step` unless there is one already; says whether it wrote.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
        """
        if step == self._saved_step:
            return False
        run = {
            "best": self.best,
            "ended": self.ended,
            "seconds": seconds,
            "records": records,
            "device": device.type,
        }
        states: dict[str, Callable[[], Any]] = {name: entry.state_dict for name, entry in self._objects.items()}
        states["rng"] = seeding.rng_state
        objects = checkpoint.Shards(states, lambda name: states[name]())
        best = int(self.best["step"]) if self.best else None
        folder, before = self.folder / CHECKPOINTS, self._saved_step
        checkpoint.save(folder, step, objects, run, keep=self.keep, best=best, previous=before)
        self._saved_step, self._save_asked = step, False
        return True

    def _load(self, found: checkpoint.Checkpoint, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._objects[name].load_state_dict(found.objects[name])
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                reason = f"{type(error).__name__} {' '.join(str(error).split())}"
                raise UserError(
                    f"{found.path} does not fit this code ({name}: {reason}); go back to the revision that made it "
                    f"(see {self.folder / ENVIRONMENT}), or delete the folder and start again"
                ) from error
