"""One run: its folder, device, seeds, steps, metrics, checkpoints and end.

    with Run(folder, plain(config), config.runtime, config.tracker, config.loop, identity) as run:
        if run.finished:
            return
        run.track("model", model)
        for step in run.steps(total):       # starts where the last checkpoint ended
            ...
            run.save_if_due(step)           # also on a stop signal
        run.finish(test, predictions)

A folder with a checkpoint is continued, one with a FINISHED mark is skipped, one made with other settings is refused.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import yaml

from common import checkpoint, environment, results, seeding
from common.entry import in_sweep
from common.errors import UserError
from common.files import remove_temporaries, write_atomic
from common.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, LogFile, Metrics, check_settings, lock, number
from common.intervals import Interval
from common.progress import Progress, duration
from common.results import UNHASHED, Results
from common.results import RunIdentity as RunIdentity
from common.schema import LoopConfig, RuntimeConfig, TrackerConfig
from common.stop import StopSignal
from common.tracker import NoTracker, Tracker, make_tracker

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """Whatever must survive a restart: modules, optimisers, schedules, data streams."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state as nested plain data and tensors."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take a state back."""


class Run:
    """See the module's docstring; use as a context manager.

    Attributes: `folder`, `identity`, `config_hash`, `finished`, `device`, `dtype`, `generator` (the run's own, on the
    CPU), `step` (outer steps done, or being done), `best` (`{"step", "score"}` of the selected model, or None).
    """

    def __init__(
        self,
        folder: Path | str,
        config: Mapping[str, Any],
        runtime: RuntimeConfig,
        tracker: TrackerConfig,
        loop: LoopConfig,
        identity: RunIdentity,
        *,
        unhashed: Sequence[str] = UNHASHED,
        job_type: str = "train",
    ) -> None:
        """Nothing is touched before `with`.

        Args:
            folder: the run folder; made if need be.
            config: the whole resolved configuration as plain data (`common.schema.plain`).
            runtime: device, precision, threads.
            tracker: mirror of the metrics.
            loop: when to log and save.
            identity: words for folders, tables and W&B; its seed seeds everything.
            unhashed: keys of `config` that cannot change a number.
            job_type: train or evaluate, for W&B.
        """
        self.folder = Path(folder)
        self.config = dict(config)
        self.identity = identity
        self.loop = loop
        self.config_hash = results.config_hash(self.config, unhashed)
        self.finished = False
        self.step = 0
        self.best: dict[str, float] | None = None
        self._unhashed, self._runtime, self._tracker_config, self._job_type = unhashed, runtime, tracker, job_type
        self._objects: dict[str, Stateful] = {}
        self._stack = ExitStack()
        self._stop = StopSignal()
        self._tracker: Tracker = NoTracker()
        self._log_file: LogFile | None = None
        self._metrics: Metrics | None = None
        self._progress: Progress | None = None
        self._total: int | None = None
        self._ended = False
        self._seconds_before = 0.0
        self._saved_step, self._save_asked = -1, False

    # ---- beginning and end

    def __enter__(self) -> Self:
        """Open the folder and set the process up.

        Raises:
            UserError: other settings or another process in the folder, an unwritable folder, or no such device.
        """
        self._began = self._saved_at = time.monotonic()
        began = bool(checkpoint.steps(self.folder / CHECKPOINTS))
        check_settings(self.folder, self.config, self._unhashed, began=began)
        self.finished = results.finished_hash(self.folder) is not None
        self.device = environment.pick_device(self._runtime.device)
        self.dtype: torch.dtype = getattr(torch, self._runtime.dtype.name)
        if self.finished:
            log.info("%s is finished: skipped", self.folder)
            return self
        try:
            self._open()
        except OSError as error:
            self._stack.close()
            raise UserError(f"{self.folder}: {error.strerror}; free space there or set loop.root") from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the process back as it was; what ended the run goes to log.txt too."""
        if isinstance(error, Exception) and self._log_file is not None:
            self._log_file.failure(error)
        self._stop.restore()
        if self._progress is not None:
            self._progress.close()
        self._tracker.finish(0 if error is None else 1)
        if self._metrics is not None:
            self._metrics.close()
        self._stack.close()

    def finish(self, test: Mapping[str, Interval], predictions: Iterable[Mapping[str, Any]] = ()) -> Results:
        """Write `predictions.jsonl`, `results.json` and the FINISHED mark.

        Raises:
            UserError: the disk is full; the run stays unfinished.
        """
        hardware = {**self._environment["hardware"], "device": self.device.type}
        written = Results(
            paper=self.identity.paper,
            experiment=self.identity.experiment,
            method=self.identity.method,
            scale=self.identity.scale,
            seed=self.identity.seed,
            config_hash=self.config_hash,
            revision=self._environment["revision"],
            dirty=self._environment["dirty"],
            hardware=hardware,
            wall_seconds=round(self.seconds, 3),
            peak_memory_bytes=environment.peak_memory_bytes(self.device),
            test=dict(test),
        )
        results.write(self.folder, written, predictions)
        self._tracker.summarise({f"test/{name}": interval.value for name, interval in test.items()})
        self.finished = True
        shown = ", ".join(f"{name} {got.value:.4g} ({got.low:.4g} to {got.high:.4g})" for name, got in test.items())
        log.info("finished in %s: %s", duration(self.seconds), shown)
        return written

    @property
    def results(self) -> Results:
        """What a finished run found."""
        return results.read(self.folder)

    @property
    def seconds(self) -> float:
        """Wall time of the run; of earlier starts only what led to the checkpoint that was continued."""
        return self._seconds_before + time.monotonic() - self._began

    # ---- the loop

    def track(self, name: str, entry: Stateful) -> None:
        """Make `entry` part of every checkpoint; before the first `restore`, `steps` or `log`."""
        if self._metrics is not None:
            raise RuntimeError(f"run.track({name!r}) comes after the checkpoint was read; track everything first")
        self._objects[name] = entry

    def restore(self) -> int:
        """Continue from the newest readable checkpoint, if there is one; returns the number of steps done.

        Metrics logged after that checkpoint are dropped: the steps come again. Happens by itself at the first `steps`
        or `log`.

        Raises:
            UserError: the checkpoint does not fit the objects tracked.
        """
        if self._metrics is not None:
            return self.step
        found = checkpoint.latest(self.folder / CHECKPOINTS)
        self._metrics = Metrics(self.folder, found.run["records"] if found else 0)
        if found is None:
            return 0
        self._load(found, self._objects)
        run = found.run
        self.step, self.best, self._ended = found.step, run["best"], run["ended"]
        self._seconds_before, self._began, self._saved_step = run["seconds"], time.monotonic(), found.step
        self.generator.set_state(found.objects["generator"])
        seeding.set_rng_state(found.objects["rng"])
        if run["device"] != self.device.type:
            log.warning("began on %s, goes on on %s: the numbers will differ", run["device"], self.device.type)
        log.info("continuing after step %d (%s so far)", self.step, duration(self._seconds_before))
        return self.step

    def restore_best(self, *names: str) -> int:
        """Put the tracked objects `names` back to the selected model's state; returns its step, 0 if none was selected.

        Raises:
            UserError: its checkpoint is unreadable.
        """
        if self.best is None:
            return 0
        step = int(self.best["step"])
        self._load(checkpoint.load(self.folder / CHECKPOINTS / checkpoint.name_of(step)), names)
        return step

    def steps(self, total: int) -> Iterator[int]:
        """The steps after the checkpoint up to `total`, counted from 1, with progress on the way."""
        self.restore()
        self._total = total
        several = in_sweep()  # their bars would overwrite each other, and logs keep no bars
        name = self.folder.name if several else ""
        with self._stop.deferred(), Progress(self.step, total, bar=False if several else None, name=name) as progress:
            self._progress = progress
            while self.step < total and not self._ended:
                self.step += 1
                yield self.step
                progress.update(self.step)
        self._progress = None

    def due(self, every: int) -> bool:
        """Is it time for what happens every so many steps (0: never) and at the last step?"""
        return self.step == self._total or self._ended or (every > 0 and self.step % every == 0)

    def end_early(self) -> None:
        """Let this step be the last, also for a run that is continued from its checkpoint."""
        self._ended = True

    def log(self, step: int, split: str, **metrics: Any) -> None:
        """Append a record to `metrics.jsonl` and send it to the tracker.

        A metric is named `<split>/<name>`; a name with a slash stays as it is. Values that are not finite become null.
        Log a step's metrics before `save_if_due`, or a restart in between loses them.

        Raises:
            UserError: the disk is full.
        """
        self.restore()
        assert self._metrics is not None
        named = {name if "/" in name else f"{split}/{name}": number(value) for name, value in metrics.items()}
        record = {"step": step, "time": round(self.seconds, 3), "split": split, **named}
        self._metrics.append(record)
        self._tracker.log(record)
        if self._progress is not None:
            shown = [(name, value) for name, value in named.items() if isinstance(value, (int, float))]
            self._progress.note(dict(shown[:2]))

    def check_finite(self, step: int, name: str, value: torch.Tensor | float) -> None:
        """Stop a run whose numbers broke, before anything of it is saved.

        Raises:
            UserError: `value` holds a NaN or an infinity.
        """
        numbers = value.detach() if isinstance(value, torch.Tensor) else torch.tensor(value)
        if torch.isfinite(numbers).all():
            return
        what = "NaN" if torch.isnan(numbers).any() else "infinite"
        left = checkpoint.steps(self.folder / CHECKPOINTS)
        kept = f"the checkpoint of step {left[0]} is intact" if left else "there was no checkpoint yet"
        raise UserError(
            f"{what} {name} at step {step}: lower the learning rates (inner.lr, outer.lr), clip gradients tighter, "
            f"or use runtime.dtype=float32; {kept} in {self.folder}"
        )

    # ---- checkpoints

    def note_best(self, score: float) -> bool:
        """Select the model of this step if `score` beats all before (the first of equals stays).

        Its checkpoint is written by this step's `save_if_due` and outlives `loop.keep`.
        """
        if not math.isfinite(score) or (self.best is not None and score <= self.best["score"]):
            return False
        self.best = {"step": self.step, "score": float(score)}
        self._save_asked = True
        return True

    def save_if_due(self, step: int) -> None:
        """Save if it is due (interval, newly selected model, last step, stop signal), then obey a stop signal.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
            SystemExit: a stop signal came; the exit code is 128 + its number.
        """
        seconds = self.loop.save_seconds
        late = seconds > 0 and time.monotonic() - self._saved_at >= seconds
        stopping = self._stop.asked
        if late or stopping or self._save_asked or self.due(self.loop.save_every):
            self.save(step)
        if stopping:
            log.warning("stop signal: saved after step %d in %s; the same command continues it", step, self.folder)
            self._stop.obey()

    def save(self, step: int) -> None:
        """Write a checkpoint now, unless this step has one.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
        """
        self.restore()
        assert self._metrics is not None
        if step == self._saved_step:
            return
        self._metrics.sync()  # a checkpoint must never be ahead of its records
        run = {
            "config_hash": self.config_hash,
            "seconds": self.seconds,
            "records": self._metrics.records,
            "best": self.best,
            "ended": self._ended,
            "device": self.device.type,
        }
        objects: dict[str, Any] = {name: entry.state_dict() for name, entry in self._objects.items()}
        objects |= {"rng": seeding.rng_state(), "generator": self.generator.get_state()}
        best = int(self.best["step"]) if self.best else None
        checkpoint.save(self.folder / CHECKPOINTS, step, objects, run, keep=self.loop.keep, best=best)
        self._saved_step, self._saved_at, self._save_asked = step, time.monotonic(), False

    def _load(self, found: checkpoint.Checkpoint, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._objects[name].load_state_dict(found.objects[name])
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                raise UserError(
                    f"{found.path} does not fit this code ({name}: {error}); go back to the revision that made it "
                    f"(see {self.folder / ENVIRONMENT}), or delete the folder and start again"
                ) from error

    # ---- the process

    def _open(self) -> None:
        """Everything that `__exit__` undoes, in order; each undoing is registered before the next step can fail."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(lock(self.folder))
        self._log_file = LogFile(self.folder)
        self._stack.callback(self._log_file.detach)
        self._log_file.attach()
        remove_temporaries(self.folder)
        remove_temporaries(self.folder / CHECKPOINTS)

        self._stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        seeding.set_deterministic(self._runtime.deterministic)
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        if self._runtime.threads:
            torch.set_num_threads(self._runtime.threads)
        seeding.seed_everything(self.identity.seed)
        self.generator = torch.Generator().manual_seed(self.identity.seed)

        self._environment = environment.describe()
        write_atomic(self.folder / CONFIG, yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        write_atomic(self.folder / ENVIRONMENT, json.dumps(self._environment, indent=2) + "\n")
        who = self.identity
        log.info("%s/%s %s, scale %s, seed %d", who.paper, who.experiment, who.method, who.scale, who.seed)
        threads = torch.get_num_threads()
        log.info("config %s on %s, %d thread(s), %s", self.config_hash, self.device, threads, self.folder)
        self._tracker = make_tracker(self._tracker_config, self.folder, self.config, who, self._job_type)
        self._stop.install()
