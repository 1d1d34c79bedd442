"""All of a run that must survive a restart, and its way into checkpoints and back."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from common.errors import UserError
from common.run import checkpoint, origin, seeding
from common.run.folder import CHECKPOINTS, ENVIRONMENT
from common.run.results import Selection, finished_hash

RNG = "rng"
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
    last = checkpoint.latest(run / CHECKPOINTS, verified=False, accept=_check_best)
    if last is None or last.run["best"] is None:
        raise UserError(f"run={run}: no selected checkpoint yet; run its training command again and it continues")
    return checkpoint.load(run / CHECKPOINTS / checkpoint.name_of(int(last.run["best"]["step"])))


def put_back(found: checkpoint.Checkpoint, parts: Mapping[str, Stateful], run: Path, model: str) -> None:
    """Give `parts` the state that `found` has under their names.

    Raises:
        UserError: the state is damaged or does not fit, as the `model` behind the folder `run` has changed.
    """
    base = found.run.get("made", {}).get(origin.FIXED, {}).get(origin.BASE)
    try:
        for name, part in parts.items():
            if base is not None and hasattr(part, "fingerprint") and part.fingerprint() != base:
                raise UserError(
                    f"run={run}: trained on other base weights than model.name={model} has now; put the old ones back"
                )
            part.load_state_dict(found.objects[name])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"run={run}: its weights do not fit model.name={model} as it is now; put back the model that the run was "
            "trained from"
        ) from error


class RunState:
    """Steps done, the selected model, wall time, the global generators, and the objects that were added.

    Attributes: `step` (outer steps done, or being done), `best` (`{"step", "score"}` or None), `ended` (no step
    follows), `seconds` and `records` (wall time and metrics up to the checkpoint that was read), `began` (when the
    clock was started that goes on from `seconds`), `saved_step` (of the last checkpoint), `made` (as in
    `common.run.origin`), `branch` (the last step of the branch that is gone through, or 0; it selects nothing).
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
        self.made: dict[str, dict[str, Any]] = {origin.FIXED: {}}
        self._objects: dict[str, Stateful] = {}
        self._read = False
        self.branch = 0
        self.began = time.monotonic()
        self.saved_step: int | None = None
        self._save_asked = False

    def add(self, name: str, entry: Stateful) -> None:
        """Make `entry` part of every checkpoint; before `restore`."""
        self._not_yet_read(f"track({name!r})")
        self._objects[name] = entry

    def fix(self, digests: Mapping[str, str]) -> None:
        """Have `restore` refuse a checkpoint that was made of other data or weights; before it."""
        self._not_yet_read("fix")
        self.made[origin.FIXED].update(digests)

    def _not_yet_read(self, call: str) -> None:
        if self._read:
            raise RuntimeError(f"run.{call} comes after the checkpoint was read; track everything first")

    def select(self, score: float, by: Selection, patience: int = 0) -> bool:
        """Take this step's model for the best if `score` beats all before; its checkpoint is then due and stays. With
        the best `patience` steps ago (0: ever so many) this step is the last."""
        if self.branch:
            return False
        selected = math.isfinite(score) and (self.best is None or by.better(score, self.best["score"]))
        if selected:
            self.best = {"step": self.step, "score": float(score)}
            self._save_asked = True
        if patience and self.best is not None and self.step - self.best["step"] >= patience:
            self.ended = True
        return selected

    @property
    def save_asked(self) -> bool:
        """Was a new model selected since the last checkpoint?"""
        return self._save_asked

    def restore(self, device: torch.device) -> bool:
        """Take everything from the newest intact checkpoint, object by object; False if there is none.

        Raises:
            UserError: it does not fit the objects that were added, or there are checkpoints and none is intact.
        """
        self._read = True
        folder = self.folder / CHECKPOINTS
        found = checkpoint.latest(folder, accept=_check)
        if found is None:
            if checkpoint.steps(folder):
                raise UserError(
                    f"{folder}: no checkpoint there can be read; delete the folder to start from the beginning, or put "
                    "an intact one back"
                )
            return False
        run = found.run
        same_device = run["device"] == device.type
        origin.compare(self.folder, found.step, run.get("made", {}), self.made, weights=same_device)
        self._load(found, self._objects)
        self.step = self.saved_step = found.step
        self.best, self.ended, self.seconds, self.records = run["best"], run["ended"], run["seconds"], run["records"]
        self.began = time.monotonic()
        if not same_device:
            log.warning("began on %s, goes on on %s: the numbers will differ", run["device"], device.type)
        # last: loading may draw numbers
        seeding.set_rng_state(found.objects[RNG])
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
        """Write the checkpoint of `step` unless there is one already, or it is a branch's; says whether it wrote.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
        """
        if self.branch or step == self.saved_step:
            return False
        run = {
            "best": self.best,
            "ended": self.ended,
            "seconds": seconds,
            "records": records,
            "device": device.type,
            "made": self.made,
        }
        states: dict[str, Callable[[], Any]] = {name: entry.state_dict for name, entry in self._objects.items()}
        states[RNG] = seeding.rng_state
        objects = checkpoint.Shards(states, lambda name: states[name]())
        best = int(self.best["step"]) if self.best else None
        folder, before = self.folder / CHECKPOINTS, self.saved_step
        checkpoint.save(folder, step, objects, run, keep=self.keep, best=best, previous=before)
        self.saved_step, self._save_asked = step, False
        return True

    def _load(self, found: checkpoint.Checkpoint, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._objects[name].load_state_dict(found.objects[name])
            except UserError:
                raise
            except Exception as error:  # whatever an object of another version makes of it
                reason = f"{type(error).__name__} {' '.join(str(error).split())}"
                raise UserError(
                    f"{found.path} does not fit this code ({name}: {reason}); go back to the revision that made it "
                    f"(see {self.folder / ENVIRONMENT}), or delete the folder and start again"
                ) from error


def _check_best(found: checkpoint.Checkpoint) -> None:
    best = found.run["best"]
    if best is not None and not (type(best["step"]) is int and best["step"] >= 0 and _is_number(best["score"])):
        raise TypeError("what it says of the best step")


def _check(found: checkpoint.Checkpoint) -> None:
    """Raise an error, which counts as damage, where a checkpoint does not say what `RunState.restore` reads."""
    _check_best(found)
    run = found.run
    counts = type(run["records"]) is int and run["records"] >= 0
    right = counts and _is_number(run["seconds"]) and type(run["ended"]) is bool and isinstance(run["device"], str)
    if not right or not all(isinstance(part, dict) for part in run.get("made", {}).values()):
        raise TypeError("what it says of the run")
    seeding.set_rng_state(found.objects[RNG])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
