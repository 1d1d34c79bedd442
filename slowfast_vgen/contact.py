"""Pictures and videos to look at: rows of frames with their names, the action written over them.

A sheet (PNG) has one picture a chunk, a GIF or an mp4 plays all rows side by side.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError
from common.run.files import write_atomic

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

Bytes = NDArray[np.uint8]
SIDE = 96
"""Pixels that the shorter side of a frame is enlarged to, at the least, by a whole factor."""
GAP = 3
TEXT = 12
INK, PAPER = (20, 20, 20), (250, 250, 250)
SUFFIXES = (".gif", ".mp4")


@dataclass(frozen=True)
class Row:
    """One video and what it is called."""

    label: str
    frames: ArrayLike
    """[f, height, width, 3], uint8 or floats from 0 to 1."""
    note: str = ""
    """A second line below the label, such as its PSNR."""


def sheet(path: Path, rows: Sequence[Row], captions: Sequence[str], chunk: int) -> None:
    """Write a PNG: a line for each row, in it the last frame of each chunk with its caption above.

    Args:
        path: `<name>.png`.
        rows: videos of equally many frames, all of one size.
        captions: of every chunk, such as the action that led into it.
        chunk: frames of a chunk.

    Raises:
        ValueError: rows that differ, or not one caption a chunk.
        UserError: the file cannot be written.
    """
    videos = _videos(rows, captions, chunk)
    taken = [video[chunk - 1 :: chunk] for video in videos]
    left, top = _margin(rows), TEXT + 2 * GAP
    height, width = taken[0].shape[1:3]
    canvas = _blank(left + len(captions) * (width + GAP), top + len(rows) * (height + GAP))
    draw = ImageDraw.Draw(canvas)
    for place, caption in enumerate(captions):
        _write(draw, (left + place * (width + GAP), GAP), _fitted(caption, width))
    for line, (row, frames) in enumerate(zip(rows, taken, strict=True)):
        corner = top + line * (height + GAP)
        _write(draw, (GAP, corner), row.label)
        _write(draw, (GAP, corner + TEXT + GAP), row.note)
        for place, frame in enumerate(frames):
            canvas.paste(Image.fromarray(frame), (left + place * (width + GAP), corner))
    _save(path, canvas, "PNG")


def film(path: Path, rows: Sequence[Row], captions: Sequence[str], chunk: int, fps: float) -> None:
    """Write a GIF or an mp4 that plays all rows side by side, the caption of the chunk above them.

    Args:
        path: `<name>.gif` or `<name>.mp4`.
        rows: as for `sheet`.
        captions: as for `sheet`.
        chunk: as for `sheet`.
        fps: frames a second; a GIF counts hundredths of a second.

    Raises:
        ValueError: as `sheet`.
        UserError: as `check`, or the file cannot be written.
    """
    check(path, fps)
    videos = _videos(rows, captions, chunk)
    shown = [
        _side_by_side(rows, [video[place] for video in videos], captions[place // chunk])
        for place in range(len(videos[0]))
    ]
    if path.suffix == ".gif":
        first, *rest = (frame.quantize(256, dither=Image.Dither.NONE) for frame in shown)
        _save(path, first, "GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / fps)), loop=0)
    else:
        _write_mp4(path, shown, fps)


def check(path: Path, fps: float) -> None:
    """See that `film` can write this video.

    Raises:
        UserError: another ending, `fps` of 0, or no library for mp4.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"out={path}: the name of a video ends in {' or '.join(SUFFIXES)}")
    if not fps > 0:
        raise UserError(f"fps={fps:g}: a video needs more than 0 frames a second")
    if path.suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"out={path}: mp4 needs the package av; install the extra `video`, or give a .gif"
            ) from error


def _side_by_side(rows: Sequence[Row], frames: Sequence[Bytes], caption: str) -> Image.Image:
    height, width = frames[0].shape[:2]
    column = max(width, *(int(_font().getlength(text)) for row in rows for text in (row.label, row.note)))
    top = 2 * (TEXT + GAP) + GAP
    canvas = _blank(GAP + len(rows) * (column + GAP), top + height + TEXT + 2 * GAP)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (GAP, GAP), caption)
    for place, (row, frame) in enumerate(zip(rows, frames, strict=True)):
        corner = GAP + place * (column + GAP)
        _write(draw, (corner, TEXT + 2 * GAP), row.label)
        canvas.paste(Image.fromarray(frame), (corner, top))
        _write(draw, (corner, top + height + GAP), row.note)
    return canvas


def _videos(rows: Sequence[Row], captions: Sequence[str], chunk: int) -> list[Bytes]:
    """The rows as enlarged bytes [f, height, width, 3]."""
    found = [_bytes(row.frames) for row in rows]
    shapes = {video.shape for video in found}
    if len(shapes) != 1 or found[0].ndim != 4 or len(found[0]) != chunk * len(captions):
        raise ValueError(f"{len(captions)} captions of chunks of {chunk} frames for videos {sorted(shapes)}")
    factor = max(1, round(SIDE / min(found[0].shape[1:3])))
    return [video.repeat(factor, 1).repeat(factor, 2) for video in found]


def _bytes(frames: ArrayLike) -> Bytes:
    given = np.asarray(frames)
    if given.dtype == np.uint8:
        return given
    return np.rint(np.clip(given, 0, 1) * 255).astype(np.uint8)


def _blank(width: int, height: int) -> Image.Image:
    """A canvas of even sides, which mp4 asks for."""
    return Image.new("RGB", (width + width % 2, height + height % 2), PAPER)


def _margin(rows: Sequence[Row]) -> int:
    return 3 * GAP + max(int(_font().getlength(text)) for row in rows for text in (row.label, row.note))


def _font() -> FreeTypeFont | BitmapFont:
    return ImageFont.load_default(TEXT)


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    draw.text(corner, text, fill=INK, font=_font(), anchor="la")


def _fitted(text: str, width: int) -> str:
    """As much of a text as fits above a picture."""
    while text and _font().getlength(text) > width:
        text = text[:-1]
    return text


def _save(path: Path, image: Image.Image, kind: str, **settings: object) -> None:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    _written(path, file.getvalue())


def _write_mp4(path: Path, shown: Sequence[Image.Image], fps: float) -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = shown[0].size
        stream.pix_fmt = "yuv420p"
        for image in shown:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    _written(path, file.getvalue())


def _written(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; free space there, or give another place") from error
