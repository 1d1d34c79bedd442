"""One run: its folder, device, seeds, steps, metrics, checkpoints and end.

    with Run(folder, config, config.runtime, config.tracker, config.loop, identity) as run:
        if run.finished:
            return
        run.track("model", model)
        for step in run.steps(total):       # starts where the last checkpoint ended
            if run.due(config.loop.evaluate_every):
                run.select(score)           # keeps the best model, and stops when patience is out
            run.save_if_due(step)           # also on a stop signal
        run.restore_best("model")
        run.finish(test, items)

A folder with a checkpoint is continued, one with a FINISHED mark is skipped, one made with other settings is refused.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from common.engine.cuda.sizes import forget_peak_memory, peak_memory_bytes
from common.run import branches, environment, finished, gradient_record, results
from common.run.entry import in_sweep
from common.run.folder import LogFile, Metrics, number
from common.run.items import Item
from common.run.opening import held_or_finished, in_words, made_of, open_folder
from common.run.progress import Progress, duration
from common.run.results import ACCURACY, Interval, Results, Selection
from common.run.results import RunIdentity as RunIdentity
from common.run.schema import LoopConfig, RuntimeConfig, TrackerConfig, plain
from common.run.state import RunState, Stateful
from common.run.stop import StopSignal
from common.run.tracker import NoTracker, Tracker, make_tracker, summary_of

log = logging.getLogger(__name__)


class Run:
    """See the module's docstring; use as a context manager.

    Attributes: `folder`, `identity`, `selection`, `config_hash`, `finished`, `device`, `dtype`, and of `state`: `step`
    (outer steps done, or being done) and `best` (`{"step", "score"}` of the selected model, or None).
    """

    def __init__(
        self,
        folder: Path | str,
        config: Any,
        runtime: RuntimeConfig,
        tracker: TrackerConfig,
        loop: LoopConfig,
        identity: RunIdentity,
        selection: Selection = ACCURACY,
        patience: int = 0,
    ) -> None:
        """Nothing is touched before `with`.

        Args:
            folder: the run folder; made if need be.
            config: the whole configuration, a dataclass; of plain data in its place every key counts for the hash.
            runtime: device, precision, threads.
            tracker: mirror of the metrics.
            loop: when to log, evaluate and save.
            identity: words for folders, tables and W&B; its seed seeds everything.
            selection: the dev metric that selects the model, and its direction.
            patience: stop after so many dev evaluations without improvement; 0 never.
        """
        self.folder = Path(folder)
        self.config: dict[str, Any] = plain(config)
        self._schema = type(config)
        self.identity, self.selection = identity, selection
        self.loop = loop
        self.config_hash = results.config_hash(self.config, self._schema)
        self.finished = False
        self.state = RunState(self.folder, loop.keep)
        self._runtime, self._tracker_config, self._patience = runtime, tracker, patience
        self._stack = ExitStack()
        self._stop = StopSignal()
        self._tracker: Tracker = NoTracker()
        self._log_file: LogFile | None = None
        self._metrics: Metrics | None = None
        self._progress: Progress | None = None
        self._total: int | None = None

    # ---- beginning and end

    def __enter__(self) -> Self:
        """Open the folder and set the process up.

        Raises:
            UserError: other settings or another process in the folder, several processes for one run, an unwritable
                folder, or no such device.
        """
        environment.refuse_several_processes()
        self.folder = finished.own_or_twin(self.folder, self.config_hash, self.loop)
        self.state.began = self._saved_at = self._step_began = time.monotonic()
        with ExitStack() as stack:  # should a step fail, those before it are undone
            self.finished = held_or_finished(stack, self.folder, self.config, self._schema, lock_needed=self.loop.lock)
            if self.finished:
                log.info("%s is finished: skipped", self.folder)
                return self
            self.device = environment.device_for(self._runtime)  # it may wait for one
            self.dtype: torch.dtype = getattr(torch, self._runtime.dtype.name)
            self._log_file, self._environment = open_folder(
                stack, self.folder, self.config, self._runtime, self.identity, self.selection
            )
            self.state.made = made_of(self._environment, self.identity, self.config_hash)
            forget_peak_memory(self.device)
            where = (self.device, torch.get_num_threads(), self.folder)
            log.info("config %s on %s, %d thread(s), %s", self.config_hash, *where)
            about = (self.folder, self.config, self.identity, self._environment)
            self._tracker = make_tracker(self._tracker_config, *about)
            self._stop.install()
            self._stack = stack.pop_all()
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
        with in_words(self.folder):
            if isinstance(error, OSError):
                raise error

    def finish(self, test: Mapping[str, Interval], items: Iterable[Item] = ()) -> Results:
        """Log the `test` metrics, then write `items` into `predictions.jsonl`, `results.json` and the FINISHED mark.

        Raises:
            UserError: the disk is full; the run stays unfinished.
        """
        self.log(self.restore(), "test", **{name: interval.value for name, interval in test.items()})
        about = (self.identity, self.config_hash, self._environment, self.device.type)
        checked = gradient_record.read(self.folder)
        written = results.of_run(*about, self.seconds, peak_memory_bytes(self.device), test, checked)
        results.write(self.folder, written, (item.to_json() for item in items))
        gradient_record.drop(self.folder)
        self._tracker.summarise(summary_of(written))
        self._tracker.attach(self.folder)
        self.finished = True
        log.info("finished in %s: %s", duration(self.seconds), results.in_words(test))
        return written

    @property
    def results(self) -> Results:
        """What a finished run found."""
        return results.read(self.folder)

    @property
    def seconds(self) -> float:
        """Wall time of the run; of earlier starts only what led to the checkpoint that was continued."""
        return self.state.seconds + time.monotonic() - self.state.began

    @property
    def step(self) -> int:
        """Outer steps done, or being done."""
        return self.state.step

    @property
    def best(self) -> dict[str, float] | None:
        """Step and score of the selected model."""
        return self.state.best

    # ---- the loop

    def track(self, name: str, entry: Stateful) -> None:
        """Make `entry` part of every checkpoint; before the first `restore`, `steps` or `log`."""
        self.state.add(name, entry)

    def fix(self, digests: Mapping[str, str]) -> None:
        """Let the run be continued with the same data (split -> digest) and weights only; called when `track` is."""
        self.state.fix(digests)

    def restore(self) -> int:
        """Continue from the newest readable checkpoint, if there is one; returns the number of steps done.

        Metrics logged after that checkpoint are dropped: the steps come again. Happens by itself at the first `steps`
        or `log`.

        Raises:
            UserError: the checkpoint does not fit the objects tracked.
        """
        self._opened_metrics()
        return self.step

    def restore_best(self, *names: str) -> int:
        """Put the tracked objects `names` back to the selected model's state; returns its step, 0 if none was selected.

        Raises:
            UserError: its checkpoint is unreadable.
        """
        return self.state.restore_best(names)

    def steps(self, total: int, outer: branches.Branching | None = None) -> Iterator[int]:
        """The steps after the checkpoint up to `total`, counted from 1, and those of the `branches` of `outer`."""
        self.restore()
        self._total = total
        with self._stop.deferred(), Progress(self.step, total, bar=False if in_sweep() else None) as progress:
            self._progress = progress
            while True:
                if outer is not None:
                    yield from branches.branch(self, outer)
                if self.step >= total or self.state.ended:
                    break
                self.state.step += 1
                self._step_began = time.monotonic()
                yield self.step
                progress.update(self.step)
        self._progress = None

    @property
    def cost(self) -> dict[str, float]:
        """For the log: seconds of this step so far, and the most memory that the run has held, in bytes."""
        seconds = time.monotonic() - self._step_began
        return {"cost/seconds_per_step": seconds, "cost/peak_memory_bytes": peak_memory_bytes(self.device)}

    def due(self, every: int) -> bool:
        """Is it time for what happens every so many steps (0: never) and at the last step? In a branch: at its last."""
        usual = self.step == self._total or self.state.ended or (every > 0 and self.step % every == 0)
        return self.step == self.state.branch if self.state.branch else usual

    def log(self, step: int, split: str, **metrics: Any) -> None:
        """Append a record to `metrics.jsonl` and send it to the tracker.

        A metric is named `<split>/<name>`; a name with a slash stays as it is. Values that are not finite become null.
        Log a step's metrics before `save_if_due`, or a restart in between loses them.

        Raises:
            UserError: the disk is full.
        """
        file = self._opened_metrics()
        if (kept := branches.split_of(split, self.state.branch)) is None:
            return
        named = {name if "/" in name else f"{kept}/{name}": number(value) for name, value in metrics.items()}
        record = {"step": step, "time": round(self.seconds, 3), "split": kept, **named}
        file.append(record)
        self._tracker.log(record)
        if self._progress is not None:
            self._progress.note(named)

    def select(self, score: float) -> bool:
        """Select the model of this step if its dev `score` beats all before (the first of equals stays).

        Its checkpoint is written by this step's `save_if_due` and outlives `loop.keep`. Once `patience` evaluations,
        one every `loop.evaluate_every` steps, brought no better one, this step is the last; they are counted from the
        step of the best, so a restart does not begin to count anew.
        """
        return self.state.select(score, self.selection, self._patience * self.loop.evaluate_every)

    # ---- checkpoints

    def save_if_due(self, step: int) -> None:
        """Save if it is due (interval, newly selected model, last step, stop signal), then obey a stop signal.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
            SystemExit: a stop signal came; the exit code is 128 + its number.
        """
        seconds = self.loop.save_seconds
        late = seconds > 0 and time.monotonic() - self._saved_at >= seconds
        stopping = self._stop.asked
        if late or stopping or self.state.save_asked or self.due(self.loop.save_every):
            self.save(step)
        if stopping:
            last = self.state.saved_step
            log.warning("stop signal: saved after step %d in %s; the same command continues it", last, self.folder)
            self._stop.obey()

    def save(self, step: int) -> None:
        """Write a checkpoint now, unless this step has one or is a branch's.

        Raises:
            UserError: the disk is full; earlier checkpoints are intact.
        """
        file = self._opened_metrics()
        file.sync()  # a checkpoint must never be ahead of its records
        if self.state.save(step, self.device, self.seconds, file.records):
            self._saved_at = time.monotonic()

    def _opened_metrics(self) -> Metrics:
        """The metrics file; the first use reads the checkpoint and cuts the file to its records."""
        if self._metrics is None:
            if self.state.restore(self.device):
                log.info("continuing after step %d (%s so far)", self.step, duration(self.seconds))
            self._metrics = Metrics(self.folder, self.state.records)
        return self._metrics
