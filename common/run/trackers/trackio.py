"""A run in Trackio's database on this machine: `trackio show --project innerloop` compares all of them.

The database lies where Trackio keeps it (`TRACKIO_DIR`, else its folder in Hugging Face's cache). Nothing leaves the
machine unless Trackio itself was told to by `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL`.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run.media import Medium
from common.run.private import told
from common.run.results import RunIdentity
from common.run.schema import TrackerConfig
from common.run.trackers.local import LocalRun
from common.run.trackers.names import EVALUATE, TRAIN, group_of, run_id

log = logging.getLogger(__name__)


class TrackioRun(LocalRun):
    """One Trackio run, one name per run folder and job. Arguments as for `WandbRun`."""

    def __init__(
        self,
        config: TrackerConfig,
        folder: Path,
        settings: Mapping[str, Any],
        identity: RunIdentity,
        environment: Mapping[str, Any],
        *,
        evaluating: bool = False,
    ) -> None:
        import trackio

        super().__init__(folder)
        self._trackio = trackio
        job = EVALUATE if evaluating else TRAIN
        name = f"{identity.method} seed={identity.seed} {job} {run_id(folder, f'trackio {job}')}"
        with _quiet():
            if not evaluating:
                _forget(config.project, name)
            self._run: Any = trackio.init(
                project=config.project,
                name=name,
                group=group_of(identity, environment.get("sweep")),
                config=told(identity.paper, settings, environment, machine=config.machine),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        log.info("Trackio project %s, run %s", config.project, name)

    def finish(self, exit_code: int) -> None:
        """Wait until all is in the database."""
        with _quiet():
            self._trackio.finish()

    def _send(self, values: Mapping[str, Any], step: int, seconds: float | None) -> None:
        if values:
            self._run.log(dict(values), step=step)

    def _show(self, found: Sequence[Medium], step: int) -> None:
        kinds = {"image": self._trackio.Image, "video": self._trackio.Video}
        self._send({medium.key: kinds[medium.kind](medium.path) for medium in found}, step, None)


def _forget(project: str, name: str) -> None:
    """Delete the run that an earlier start of the same folder left."""
    import trackio

    with contextlib.suppress(ValueError):  # no such project yet
        for run in trackio.Api().runs(project):
            if run.name == name:
                run.delete()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Trackio prints; a run's console is its log."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
