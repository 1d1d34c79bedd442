"""Recordings: what is read from files, when what was asked for, and each bad input in words."""

import builtins
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.recordings import sidecar
from slowfast_vgen.worlds.config import DataConfig, FolderConfig
from slowfast_vgen.worlds.episode import World
from slowfast_vgen.worlds.recorded import Recorded, most
from slowfast_vgen.worlds.videos import read

TURNS = "frame,action\n0,turn left\n12,turn right\n"


def shades(count: int, height: int = 16, width: int = 32) -> np.ndarray:
    """Frame i is of brightness i all over."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)).copy()


def npz(path: Path, count: int = 40, **parts: Any) -> Path:
    np.savez(path, **{"frames": shades(count), "times": np.arange(count) / 4, **parts})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings of four frames a second."""
    for name in "abc":
        npz(tmp_path / f"{name}.npz")
        (tmp_path / f"{name}.csv").write_text(TURNS)
    return tmp_path


def opened(folder: Path, **given: Any) -> World:
    return world_of(DataConfig(world="folder", folder=FolderConfig(path=str(folder), **given)))


def test_a_chunk_begins_where_the_action_changes(folder: Path) -> None:
    world = opened(folder)
    assert world.actions.names == ("turn left", "turn right")
    found = world.clips(0, "train", 0, 40)
    first = found.frames[:, 1, 0, 0, 0, 0]
    assert set(first[found.actions[:, 1] == 2].tolist()) == {12, 16, 20, 24, 28, 32, 36}
    assert set(first[found.actions[:, 1] == 1].tolist()) == {4, 8}  # the first has no chunk before it
    assert np.array_equal(found.frames[:, 1, 0] - found.frames[:, 0, 0], np.full_like(found.frames[:, 0, 0], 4))


def test_actions_are_drawn_as_often_however_rare(folder: Path) -> None:
    world = opened(folder)
    assert isinstance(world, Recorded)
    asked = world.asked("train")
    assert (asked == 1).sum() == 3 and (asked == 2).sum() == 7
    assert abs((world.clips(0, "train", 0, 2000).actions[:, 1] == 1).mean() - 0.5) < 0.04


def test_each_recording_is_in_one_split_as_a_whole(folder: Path) -> None:
    for number, name in enumerate("abc"):
        npz(folder / f"{name}.npz", frames=shades(40) + np.uint8(50 * number))
    splits = [opened(folder).clips(0, split, 0, 30).frames // 50 for split in ("train", "dev", "test")]
    assert sorted(int(each.flat[0]) for each in splits) == [0, 1, 2] and all(
        (each == each.flat[0]).all() for each in splits
    )


def test_an_item_depends_on_seed_split_and_number_alone(folder: Path) -> None:
    world = opened(folder)
    assert np.array_equal(world.clips(1, "dev", 0, 9).frames[5], world.clips(1, "dev", 5, 1).frames[0])
    stretches = [world.episodes(1, "dev", "new", 2, first, count).frames for first, count in ((0, 9), (5, 1))]
    assert np.array_equal(stretches[0][5], stretches[1][0])


def test_a_stretch_is_as_it_was_filmed(folder: Path) -> None:
    found = opened(folder).episodes(0, "test", "new", 4, 0, 6)
    shown = found.frames[:, :, :, 0, 0, 0].reshape(6, -1).astype(int)
    assert (np.diff(shown) == 1).all() and shown.shape == (6, 20)
    assert (found.gaps == -1).all() and found.phases[0] == ("start", "new", "new", "new", "new")


def test_resampling_takes_the_frame_that_is_shown_at_each_moment(tmp_path: Path) -> None:
    times = np.array([0, 0.5, 0.6, 2.0, 2.1])
    video = read(npz(tmp_path / "a.npz", 5, times=times), 4.0, None, 16, 32)
    assert video.frames[:, 0, 0, 0].tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 3, 4, 4]


def test_an_archive_without_times_has_the_rate_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, frames=shades(8))
    assert read(path, 2.0, 4.0, 16, 32).frames[:, 0, 0, 0].tolist() == [0, 2, 4, 6]
    with pytest.raises(
        UserError, match="a.npz: does not say how many frames a second it has; set data.folder.source_f"
    ):
        read(path, 2.0, None, 16, 32)


def test_a_gif_and_a_folder_of_images_are_read(tmp_path: Path) -> None:
    first, *rest = (Image.fromarray(frame) for frame in shades(6) * np.uint8(40))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=250)
    assert (
        np.abs(read(tmp_path / "a.gif", 4.0, None, 16, 32).frames[:, 0, 0, 0].astype(int) - 40 * np.arange(6)).max() < 6
    )
    (tmp_path / "walk").mkdir()
    for number, frame in enumerate(shades(12)):
        Image.fromarray(frame).save(tmp_path / "walk" / f"f{number}.png")
    assert read(tmp_path / "walk", 4.0, 4.0, 16, 32).frames[:, 0, 0, 0].tolist() == list(range(12))  # f10 after f9


def test_frames_are_averaged_down_to_size(tmp_path: Path) -> None:
    frames = np.zeros((9, 32, 64, 3), np.uint8)
    frames[:, ::2] = 100
    video = read(npz(tmp_path / "a.npz", 9, frames=frames), 4.0, None, 16, 32)
    assert video.size == (32, 64) and (video.frames == 50).all()


def test_the_action_of_a_chunk_is_that_of_most_of_its_frames() -> None:
    assert most(np.array([1, 1, 2, 2, 2, 1, 0]), 3).tolist() == [1, 2, 2, 2, 0, 0, 0]


def test_a_sidecar_of_json_lines_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"time": 0, "action": "go"}\n{"time": 1.5, "action": "stop"}\n')
    found = sidecar(npz(tmp_path / "a.npz"))
    assert [(each.at, each.counted, each.action) for each in found] == [(0, False, "go"), (1.5, False, "stop")]


@pytest.mark.parametrize(
    "lines, message",
    [
        (["time,action", "0,go", "99,stop"], r"a.csv:3: time=99 s, and a.npz lasts 10 s; correct it"),
        (["frame,action", "40,go"], r"a.csv:2: frame=40, and a.npz has 40 frames from 0"),
        (["frame,action", "1.5,go"], r"a.csv:2: frame='1.5'; write a whole number"),
        (["time,action", "soon,go"], r"a.csv:2: time='soon'; write seconds"),
        (["time,action", "2,go", "1,stop"], r"a.csv:3: not after the line before"),
        (["second,action", "2,go"], r"a.csv:2: has second, action; time or frame is needed, and action"),
        (["time,action"], r"a.csv: asks for nothing; write a line for each action"),
    ],
)
def test_a_sidecar_that_cannot_be_used(folder: Path, lines: Sequence[str], message: str) -> None:
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_an_action_that_nobody_declared_names_the_closest(folder: Path) -> None:
    (folder / "b.csv").write_text("frame,action\n0,turn lft\n")
    with pytest.raises(
        UserError, match=r"b.csv:2: action 'turn lft' is unknown: did you mean 'turn left'\?.*data.fold"
    ):
        opened(folder, actions=["turn left", "turn right"])


def test_a_folder_without_sidecar(folder: Path) -> None:
    (folder / "c.csv").unlink()
    with pytest.raises(
        UserError, match=r"c.npz: no sidecar; put one c.csv or c.jsonl beside it, with the columns time"
    ):
        opened(folder)


def test_two_sidecars(folder: Path) -> None:
    (folder / "c.jsonl").write_text(json.dumps({"time": 0, "action": "go"}))
    with pytest.raises(UserError, match=r"c.npz: two sidecars"):
        opened(folder)


def test_too_few_recordings_for_the_splits(folder: Path) -> None:
    (folder / "c.npz").unlink()
    with pytest.raises(UserError, match=r"2 recordings for 3 splits .train, dev, test.; a recording is in one split"):
        opened(folder)


def test_no_recording_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no recording in it; put .mp4, .webm, .mkv, .gif, .npz files or folders of im"
    ):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"data.folder.path is not set"):
        world_of(DataConfig(world="folder"))


def test_a_recording_shorter_than_two_chunks(folder: Path) -> None:
    npz(folder / "a.npz", 7)
    (folder / "a.csv").write_text("frame,action\n0,go\n")
    with pytest.raises(UserError, match=r"a.npz: 7 frames, and two chunks are 8; use a longer recording"):
        opened(folder)


def test_recordings_of_two_sizes(folder: Path) -> None:
    npz(folder / "b.npz", frames=shades(40, 16, 16))
    with pytest.raises(UserError, match=r"b.npz: frames of 16 by 16 pixels, and .*a.npz has 16 by 32; bring all"):
        opened(folder)


@pytest.mark.parametrize(
    "parts, message",
    [
        (
            {"frames": np.zeros((9, 16, 32, 1), np.uint8)},
            r"frames are uint8 \[9, 16, 32, 1\], and uint8 \[n, height, wi",
        ),
        ({"frames": np.zeros((9, 16, 32, 3))}, r"frames are float64 \[9, 16, 32, 3\]"),
        ({"frames": np.zeros((0, 16, 32, 3), np.uint8), "times": np.zeros(0)}, r"a.npz: no frame in it"),
        ({"times": np.zeros(3)}, r"times are \[3\] for 40 frames"),
        ({"times": np.zeros(40)}, r"frame 1 is at 0 s, not after the one before"),
    ],
)
def test_an_archive_of_other_frames(tmp_path: Path, parts: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(npz(tmp_path / "a.npz", **parts), 4.0, None, 16, 32)


@pytest.mark.parametrize("name", ["a.npz", "a.gif"])
def test_a_truncated_file_says_that_it_is_damaged(tmp_path: Path, name: str) -> None:
    npz(tmp_path / "a.npz")
    first, *rest = (Image.fromarray(frame) for frame in shades(6) * np.uint8(40))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=250)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: 40 if name == "a.gif" else 300])
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        read(path, 4.0, None, 16, 32)


def test_images_that_differ_or_are_none(tmp_path: Path) -> None:
    Image.fromarray(shades(1)[0]).save(tmp_path / "0.png")
    Image.fromarray(shades(1, 8, 8)[0]).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"frame 1 is of another size than those before .8 by 8, 16 by 32."):
        read(tmp_path, 4.0, 4.0, 16, 32)
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1.png: damaged or no image"):
        read(tmp_path, 4.0, 4.0, 16, 32)


def test_without_the_extra_a_film_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"a.mp4: reading .mp4 needs the extra video: pip install 'innerloop\[video\]'"):
        read(tmp_path / "a.mp4", 4.0, None, 16, 32)


def test_a_film_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra video is not installed")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 64, 32
        for frame in shades(12, 32, 64) * np.uint8(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    video = read(path, 4.0, None, 16, 32)
    assert len(video.frames) == 12 and np.abs(video.frames[:, 8, 8, 0].astype(int) - 20 * np.arange(12)).max() < 12
    for content in (b"", b"no film at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.mp4: damaged or no video"):
            read(path, 4.0, None, 16, 32)


@pytest.mark.parametrize("key", ["fps", "source_fps"])
def test_no_frames_a_second_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"data.folder.{key}=0: use more than 0 frames a second"):
        FolderConfig(**{key: 0.0})  # type: ignore[arg-type]


def test_shares_that_are_not_of_the_splits_are_refused() -> None:
    with pytest.raises(UserError, match="data.folder.shares=.'train': 0.9, 'test': 0.1.: give train, dev, test shares"):
        FolderConfig(shares={"train": 0.9, "test": 0.1})
