"""What trackers that write to this machine share.

They begin anew at every start and are told the run from `metrics.jsonl`: a continued run has each step once, and one
that gets its tracker half way has its beginning there, too.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run import media
from common.run.folder import read_records
from common.run.media import Medium

UNPLOTTED = ("step", "time", "split")
"""Keys of a record that are no metrics."""


class LocalRun(ABC):
    """A run as a local tracker has it; any call may raise whatever the tracker raises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step = 0
        self._told: set[str] = set()
        self._begun = False

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record; with the first all that stand before it in `metrics.jsonl`, whose last line it is."""
        for each in [record] if self._begun else [*read_records(self._folder)[:-1], record]:
            values = {name: value for name, value in each.items() if name not in UNPLOTTED and value is not None}
            self._step = each["step"]
            self._told |= set(values)
            self._send(values, each["step"], each.get("time", 0.0))
        self._begun = True

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Take the final values that no record had, at the last step."""
        self._send({name: value for name, value in values.items() if name not in self._told}, self._step, None)

    def attach(self, folder: Path) -> None:
        """Take the media of the run folder, at the last step."""
        self._show(media.for_tracker(folder), self._step)

    @abstractmethod
    def finish(self, exit_code: int) -> None:
        """Close; 0 is success."""

    @abstractmethod
    def _send(self, values: Mapping[str, Any], step: int, seconds: float | None) -> None:
        """Take metrics of a step, `seconds` into the run; None: now."""

    @abstractmethod
    def _show(self, found: Sequence[Medium], step: int) -> None:
        """Take media."""
