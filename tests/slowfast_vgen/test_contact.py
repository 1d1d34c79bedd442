"""Contact sheets and videos: what is drawn where, what is refused, nothing half written."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from common.errors import UserError
from slowfast_vgen.contact import GAP, Row, film, sheet

CHUNK, CAPTIONS = 2, ["start", "turn left", "turn right"]
HUES = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200], [200, 0, 200]]
COLOURS = np.array(HUES, np.uint8)
VIDEO = np.broadcast_to(COLOURS[:, None, None], (6, 8, 16, 3)).copy()
ROWS = [Row("truth", VIDEO), Row("without", VIDEO[::-1] / 255, "PSNR 3.0 dB")]


def colours_of(image: Image.Image) -> list[tuple[int, int, int]]:
    """The plain colours of the frames in a picture, in reading order."""
    pixels = np.asarray(image.convert("RGB"))
    found: list[tuple[int, int, int]] = []
    for line in range(0, pixels.shape[0], 8):
        row = [tuple(pixel) for pixel in pixels[line].tolist()]
        runs = [row[place] for place in range(50, len(row)) if len(set(row[place - 50 : place])) == 1]
        named = [colour for colour in dict.fromkeys(runs) if sorted(colour)[2] == 200 and sorted(colour)[0] == 0]
        found += [colour for colour in named if not found or colour not in found[-len(named) :]]
    return found


def test_a_sheet_shows_the_last_frame_of_every_chunk_row_by_row(tmp_path: Path) -> None:
    sheet(tmp_path / "media" / "a.png", ROWS, CAPTIONS, CHUNK)
    with Image.open(tmp_path / "media" / "a.png") as image:
        assert image.width >= 3 * (16 * 12 + GAP) and image.height >= 2 * (8 * 12 + GAP)
        rows = COLOURS[1::2].tolist() + COLOURS[::-1][1::2].tolist()
        assert colours_of(image) == list(map(tuple, rows))


def test_a_gif_has_every_frame_of_every_row_at_its_time(tmp_path: Path) -> None:
    film(tmp_path / "a.gif", ROWS, CAPTIONS, CHUNK, fps=4)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 250
        for place, frame in enumerate(ImageSequence.Iterator(image)):
            assert colours_of(frame) == [tuple(COLOURS[place].tolist()), tuple(COLOURS[5 - place].tolist())]
        assert place == 5


def test_captions_follow_the_chunks(tmp_path: Path) -> None:
    same = [Row("truth", np.zeros_like(VIDEO))]
    film(tmp_path / "a.gif", same, CAPTIONS, CHUNK, fps=10)
    with Image.open(tmp_path / "a.gif") as image:
        drawn = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
    assert len(set(drawn)) == len(drawn) == 3  # Pillow joins frames that are equal: one a caption


def test_an_mp4_holds_as_many_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    film(tmp_path / "a.mp4", ROWS, CAPTIONS, CHUNK, fps=4)
    with av.open(tmp_path / "a.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 6


def test_mp4_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        UserError, match=r"a\.mp4: mp4 needs the package av; install the extra `video`, or give a \.gif"
    ):
        film(tmp_path / "a.mp4", ROWS, CAPTIONS, CHUNK, fps=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, fps, message",
    [
        ("a.webm", 4, r"a\.webm: the name of a video ends in \.gif or \.mp4"),
        ("a.gif", 0, "fps=0: a video needs more than 0 frames a second"),
    ],
)
def test_what_cannot_be_a_video_is_refused(tmp_path: Path, name: str, fps: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        film(tmp_path / name, ROWS, CAPTIONS, CHUNK, fps)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 captions of chunks of 2 frames for videos"):
        sheet(tmp_path / "a.png", ROWS, CAPTIONS[:2], CHUNK)
    with pytest.raises(ValueError, match=r"\(5, 8, 16, 3\), \(6, 8, 16, 3\)"):
        sheet(tmp_path / "a.png", [*ROWS, Row("short", VIDEO[1:])], CAPTIONS, CHUNK)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png: .*; free space there, or give another place"):
        sheet(tmp_path / "file" / "a.png", ROWS, CAPTIONS, CHUNK)
