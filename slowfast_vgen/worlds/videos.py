"""Frames of a video file, a folder of images or an .npz, resampled and at one size as they are read.

.gif                       Pillow
.mp4 .webm .mkv            PyAV, the extra `video`
folder of .png .jpg ...    in the order of their names, numbers by their value
.npz                       frames, uint8 [n, height, width, 3]; times in seconds [n] may be there
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from common.data import npz
from common.errors import UserError

FILMS = (".mp4", ".webm", ".mkv")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SUFFIXES = (*FILMS, ".gif", ".npz")
AGAIN = "copy or record it again"
GIF_SECONDS = 0.1
"""Of a frame that does not say, as browsers take it."""

Bytes = NDArray[np.uint8]


class Shot(NamedTuple):
    """A frame and when it is shown, in seconds."""

    time: float
    frame: Bytes


class Video(NamedTuple):
    """A recording, resampled."""

    frames: Bytes
    """[n, height, width, 3]"""
    times: NDArray[np.float64]
    """When each frame of the recording itself is shown, in seconds."""
    end: float
    """When the last one ends."""
    size: tuple[int, int]
    """Of the recording itself: height and width."""


def read(path: Path, fps: float, source_fps: float | None, height: int, width: int) -> Video:
    """A recording at `fps` frames a second: the frame that is shown at each moment, averaged down to one size.

    Raises:
        UserError: it is empty, damaged, of frames that differ or are not in colour, does not say how fast it is, or
            needs the extra that is not installed.
    """
    kept, times, sizes = list[Bytes](), list[float](), set[tuple[int, int]]()
    small: Bytes | None = None
    for shot in _shots(path, source_fps):
        if times and shot.time <= times[-1]:
            raise UserError(f"{path}: frame {len(times)} is at {shot.time:g} s, not after the one before; {AGAIN}")
        sizes.add((shot.frame.shape[0], shot.frame.shape[1]))
        if len(sizes) > 1:
            raise UserError(
                f"{path}: frame {len(times)} is of another size than those before ({_told(sizes)}); {AGAIN}"
            )
        while small is not None and len(kept) < fps * (shot.time - times[0]) - 1e-6:
            kept.append(small)
        small = resized(shot.frame, height, width)
        times.append(shot.time)
    if small is None:
        raise UserError(f"{path}: no frame in it; {AGAIN}, or take it out of the folder")
    end = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
    while len(kept) < max(fps * (end - times[0]) - 1e-6, 1):
        kept.append(small)
    return Video(np.stack(kept), np.array(times), end, sizes.pop())


def resized(frame: Bytes, height: int, width: int) -> Bytes:
    """A frame [h, w, 3] averaged to [height, width, 3]; its proportions become those of the new size."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def images_of(folder: Path) -> list[Path]:
    """The images of a folder, numbers in their names by their value."""

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted((path for path in folder.iterdir() if path.suffix.lower() in IMAGES), key=order)


def _shots(path: Path, source_fps: float | None) -> Iterator[Shot]:
    if path.is_dir():
        return _timed(path, (_image(each) for each in images_of(path)), source_fps)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _archive(path, source_fps)
    return _gif(path) if suffix == ".gif" else _film(path)


def _timed(path: Path, frames: Iterable[Bytes], source_fps: float | None) -> Iterator[Shot]:
    if source_fps is None:
        raise UserError(f"{path}: does not say how many frames a second it has; set data.folder.source_fps")
    return (Shot(number / source_fps, frame) for number, frame in enumerate(frames))


def _image(path: Path) -> Bytes:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's of what is no image
        raise UserError(f"{path}: damaged or no image ({error}); {AGAIN}") from error


def _gif(path: Path) -> Iterator[Shot]:
    time = 0.0
    try:
        with Image.open(path, formats=["GIF"]) as image:
            for frame in ImageSequence.Iterator(image):
                yield Shot(time, np.asarray(frame.convert("RGB")))
                time += frame.info.get("duration", 0) / 1000 or GIF_SECONDS
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: damaged or no GIF ({error}); {AGAIN}") from error


def _archive(path: Path, source_fps: float | None) -> Iterator[Shot]:
    parts = npz.arrays(path, ("frames",), optional=("times",))
    frames, times = parts["frames"], parts.get("times")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise UserError(
            f"{path}: frames are {frames.dtype} {list(frames.shape)}, and uint8 [n, height, width, 3] are needed; "
            "convert them to colour in bytes"
        )
    if times is None:
        return _timed(path, frames, source_fps)
    if times.shape != (len(frames),) or not np.isfinite(times).all():
        raise UserError(f"{path}: times are {list(times.shape)} for {len(frames)} frames, or not finite; one each")
    return (Shot(float(time), frame) for time, frame in zip(times, frames, strict=True))


def _film(path: Path) -> Iterator[Shot]:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{path}: reading {path.suffix} needs the extra video: pip install 'innerloop[video]'; or convert it to a "
            "folder of images, .npz or .gif"
        ) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: no video in it; {AGAIN}, or take it out of the folder")
            for frame in container.decode(video=0):
                yield Shot(float(frame.time or 0.0), frame.to_ndarray(format="rgb24"))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or no video ({error}); {AGAIN}") from error


def _told(sizes: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{height} by {width}" for height, width in sorted(sizes))
