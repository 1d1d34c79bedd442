"""TensorBoard's event files in the run folder: `tensorboard --logdir runs` shows every run below by its path."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run.media import Medium
from common.run.trackers.local import LocalRun
from common.run.trackers.names import EVALUATE, TRAIN

FOLDER = "tensorboard"
log = logging.getLogger(__name__)


class TensorboardRun(LocalRun):
    """Event files in `<run>/tensorboard/train`, those of later evaluations in `<run>/tensorboard/evaluate`."""

    def __init__(self, folder: Path, *, evaluating: bool = False) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        super().__init__(folder)
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._started: float | None = None
        place = folder / FOLDER / (EVALUATE if evaluating else TRAIN)
        if not evaluating:
            for old in place.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = EventFileWriter(str(place))
        log.info("TensorBoard events in %s", place)

    def finish(self, exit_code: int) -> None:
        """Write what is still in memory."""
        self._writer.close()

    def _send(self, values: Mapping[str, Any], step: int, seconds: float | None) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(scalars, step, seconds)

    def _show(self, found: Sequence[Medium], step: int) -> None:
        from PIL import Image

        values = []
        for medium in found:
            if medium.path.suffix == ".mp4":
                log.info("TensorBoard shows no mp4: %s is left out", medium.path)
                continue
            with Image.open(medium.path) as picture:
                width, height = picture.size
            encoded = medium.path.read_bytes()  # a gif as it is: TensorBoard shows it moving
            image = self._summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
            values.append(self._summary.Value(tag=medium.key, image=image))
        self._write(values, step, None)

    def _write(self, values: Sequence[Any], step: int, seconds: float | None) -> None:
        """One event. Its clock is the run's own, so that records told again stand where they belong."""
        now = time.time()
        if seconds is not None and self._started is None:
            self._started = now - seconds
        at = now if seconds is None or self._started is None else self._started + seconds
        self._writer.add_event(self._event(step=step, wall_time=at, summary=self._summary(value=values)))
