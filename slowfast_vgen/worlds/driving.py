"""Driving: laps recorded in the Udacity simulator, front camera, with steering and speed (MIT, Udacity).

    session_a.npz         1,816 frames at about 6.4 a second: 2.2 laps
    session_b_first.npz   572 frames of another drive
    each                  JPEG images (`common.data.jpegs`), actions [n, 4]: steering, throttle, brake, speed (mph)

The first lap of A is the train split, the rest of A the dev split, B the test split. What was asked for is read off
steering and speed. Family `turn` is a lap and the first chunks of the next: the place of a frame one lap before is the
one whose picture is nearest. Its episodes begin in the first half of what is possible for dev and in the other for
test; all of them need A, whose first lap is in training.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data import jpegs, npz
from common.data.dataroot import find
from common.errors import UserError
from slowfast_vgen.actions import Actions
from slowfast_vgen.metrics.pixels import psnr
from slowfast_vgen.worlds.config import DRIVING, REMEDY, DrivingConfig, Shape
from slowfast_vgen.worlds.draws import Draws, Ints
from slowfast_vgen.worlds.episode import LOOP, NEW, NO_REVISIT, START, TURN, UNKNOWN, Episodes, Frames, check_asked
from slowfast_vgen.worlds.recorded import Recorded, Recording
from slowfast_vgen.worlds.videos import resized

ACTIONS = Actions(("straight", "left", "right", "stop"))
STRAIGHT, LEFT, RIGHT, STOP = 1, 2, 3, 4
SIZE = (128, 64)
"""Width and height of the files' images."""
STEERING, SPEED = 0, 3
COARSE = (8, 16)
"""Height and width at which the length of a lap is looked for."""
LAPS = (500, 1200)
"""Between so many frames the length of a lap is looked for."""
NEAR = 60
"""Frames before and after one lap back among which the same place is looked for."""


class Driving(Recorded):
    """The world of a configuration, as `slowfast_vgen.worlds.episode.World`."""

    families: tuple[str, ...] = (NO_REVISIT, TURN)

    def __init__(self, config: DrivingConfig, shape: Shape, root: str | None = None) -> None:
        """Raises UserError where a file is missing or damaged."""
        self.every = config.every
        paths = [find(root, name, REMEDY) for name in DRIVING]
        a, b = (session(path, config, shape) for path in paths)
        self.whole = a
        self.lap, self.match = laps(a.frames)
        """Frames of a lap; for each frame of A after the first lap the earlier one that shows the same place."""
        train, dev = (
            replace(a, name=f"{a.name}, {which}", frames=a.frames[part], asked=a.asked[part], starts=a.starts[part])
            for which, part in (("first lap", slice(None, self.lap)), ("the rest", slice(self.lap, None)))
        )
        super().__init__(ACTIONS, {split: thin(each, self.every) for split, each in
                                   (("train", train), ("dev", dev), ("test", b))}, shape)  # fmt: skip

    def episodes(self, seed: int, split: str, family: str, length: int, first: int, count: int) -> Episodes:
        """Stretches; of `turn` those that end with `length` chunks one lap after the first ones.

        Raises:
            UserError: another family, or no recording is as long; no second lap in the train split.
        """
        if family != TURN:
            return super().episodes(seed, split, family, length, first, count)
        check_asked(self.families, family, length)
        if split == "train":
            raise UserError("family=turn: the train split has one lap; use dev or test, whose episodes end in the next")
        step = self.every * self.chunk
        chunks = -(-self.lap // step) + length
        possible = len(self.whole.frames) - chunks * step + 1
        if possible < 2:
            raise UserError(f"length={length} chunks in family=turn: the second lap has fewer; use a smaller length")
        half, items = possible // 2, np.arange(first, first + count)
        begin = Draws(seed, split, family, "where").integers(items, half) + (half if split == "test" else 0)
        frame = begin[:, None] + self.every * np.arange(chunks * self.chunk)
        last = frame[:, self.chunk - 1 :: self.chunk]
        back = self.match[(last - self.lap).clip(0)]
        earlier = (abs(last[:, None, :] - back[..., None])).argmin(-1)
        again = last >= begin[:, None] + self.lap
        own = np.broadcast_to(np.arange(chunks), last.shape)
        return Episodes(
            frames=self.whole.frames[frame].reshape(count, chunks, self.chunk, self.height, self.width, 3),
            actions=self.whole.asked[frame[:, :: self.chunk]],
            places=np.where(again, earlier, own),
            looks=np.full_like(own, UNKNOWN),
            gaps=np.where(again, own - 1 - earlier, UNKNOWN),
            phases=tuple((START, *(LOOP if each else NEW for each in row[1:])) for row in again.tolist()),
            ids=tuple(f"{split}/{family}/{item}" for item in items.tolist()),
        )

    def match_error(self) -> tuple[float, float]:
        """PSNR in dB of the frames of the second lap against those matched, and against those half a lap off."""
        later = self.whole.frames[self.lap :]
        pairs = (self.match, (self.match + self.lap // 2) % len(self.whole.frames))
        matched, elsewhere = (float(psnr(self.whole.frames[each], later).mean()) for each in pairs)
        return matched, elsewhere


def session(path: Path, config: DrivingConfig, shape: Shape) -> Recording:
    """A session at the size of a frame, with what was asked for.

    Raises:
        UserError: the file is damaged, or its parts do not fit.
    """
    parts = npz.arrays(path, (*jpegs.PARTS, "actions"))
    images, controls = jpegs.images(path, parts, *SIZE), parts["actions"]
    if controls.shape != (len(images), 4):
        raise UserError(f"{path}: {len(images)} images, and actions {list(controls.shape)}; {npz.AGAIN}")
    frames = np.stack([resized(image, shape.height, shape.width) for image in images])
    span = config.every * shape.chunk
    return Recording(path.stem, frames, commands(controls, span, config), np.ones(len(frames), bool))


def commands(controls: NDArray[np.float32], span: int, config: DrivingConfig) -> Ints:
    """What the driver asked for during the `span` frames from each on [n]: by the means of steering and speed."""
    padded = np.concatenate([controls, np.repeat(controls[-1:], span, 0)]).astype(float)
    sums = np.concatenate([np.zeros((1, 4)), padded.cumsum(0)])
    mean = (sums[span : span + len(controls)] - sums[: len(controls)]) / span
    steering = mean[:, STEERING]
    turned = np.where(steering < 0, LEFT, RIGHT)
    found = np.where(abs(steering) < config.steering, STRAIGHT, turned)
    return np.where(mean[:, SPEED] < config.stopped, STOP, found)


def laps(frames: Frames) -> tuple[int, Ints]:
    """Frames of a lap: the shift at which the recording is most like itself; and for each frame after the first lap
    the most similar one near one lap back [frames - lap]."""
    small = np.stack([resized(frame, *COARSE) for frame in frames]).reshape(len(frames), -1).astype(np.float32)
    shifts = np.arange(min(LAPS[0], len(frames) // 2), min(LAPS[1], len(frames) - 1))
    lap = int(shifts[int(np.argmin([((small[shift:] - small[:-shift]) ** 2).mean() for shift in shifts]))])
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    squares = (flat**2).sum(1)
    found = np.empty(len(frames) - lap, np.int64)
    for before in range(len(found)):
        near = np.arange(max(0, before - NEAR), before + min(NEAR, lap))
        found[before] = near[(squares[near] - 2 * flat[near] @ flat[before + lap]).argmin()]
    return lap, found


def thin(recording: Recording, every: int) -> list[Recording]:
    """Every so many-th frame, once for each frame to begin with."""
    return [
        replace(recording, frames=recording.frames[first::every], asked=recording.asked[first::every],
                starts=recording.starts[first::every])
        for first in range(every)
    ]  # fmt: skip
