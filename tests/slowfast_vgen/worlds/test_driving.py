"""Driving: laps of a made-up track in the files' format."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.worlds.config import DataConfig, DrivingConfig
from slowfast_vgen.worlds.driving import ACTIONS, Driving, commands, laps, thin
from slowfast_vgen.worlds.recorded import Recording

LAP, FRAMES = 520, 1250


def write(path: Path, frames: int, controls: np.ndarray | None = None) -> None:
    """Coarse noise that comes again each lap, packed as the real sessions are."""
    track = np.random.default_rng(0).integers(0, 256, (LAP, 2, 4, 3), dtype=np.uint8)
    files = []
    for frame in range(frames):
        file = io.BytesIO()
        Image.fromarray(track[frame % LAP].repeat(32, 0).repeat(32, 1)).save(file, "JPEG", quality=75)
        files.append(file.getvalue())
    if controls is None:
        controls = np.zeros((frames, 4), np.float32)
        controls[:, 3], controls[frames // 4 : frames // 4 + 60, 0] = 20, -0.3
    np.savez(
        path,
        header=np.frombuffer(files[0][:2], np.uint8),
        body=np.frombuffer(b"".join(each[2:] for each in files), np.uint8),
        offsets=np.cumsum([0, *(len(each) - 2 for each in files)]),
        actions=controls,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "driving_sim").mkdir()
    write(folder / "driving_sim" / "session_a.npz", FRAMES)
    write(folder / "driving_sim" / "session_b_first.npz", 80)
    return folder


@pytest.fixture(scope="module")
def world(root: Path) -> Driving:
    found = world_of(DataConfig(world="driving", size="small", root=str(root)))
    assert isinstance(found, Driving)
    return found


def test_a_lap_is_found_and_each_frame_one_lap_later(world: Driving) -> None:
    assert world.lap == LAP and np.array_equal(world.match, np.arange(FRAMES - LAP))
    matched, elsewhere = world.match_error()
    assert matched > 90 and elsewhere < 12


def test_a_lap_driven_faster_is_matched_by_its_pictures() -> None:
    track = np.random.default_rng(1).integers(0, 256, (700, 8, 16, 3), dtype=np.uint8)
    drift = np.arange(650) + (np.arange(650) // 50)  # gains a frame in fifty
    lap, match = laps(np.concatenate([track, track[drift]]))
    at = np.arange(700, 1350)
    near = np.abs(drift - (at - lap)) < 50
    assert near.sum() > 300 and np.array_equal(match[(at - lap)[near]], drift[near])


def test_splits_are_parts_of_a_and_all_of_b(world: Driving) -> None:
    lengths = {split: sum(len(each.frames) for each in some) for split, some in world.splits.items()}
    assert lengths == {"train": LAP, "dev": FRAMES - LAP, "test": 80}


def test_thinning_keeps_every_frame_once() -> None:
    found = thin(
        Recording("a", np.arange(10, dtype=np.uint8)[:, None, None, None], np.arange(10), np.ones(10, bool)), 4
    )
    assert [each.asked.tolist() for each in found] == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]


def test_commands_are_read_off_steering_and_speed() -> None:
    controls = np.zeros((12, 4), np.float32)
    controls[:, 3] = 20
    controls[0:3, 0], controls[3:6, 0], controls[9:, 3] = -0.2, 0.2, 0
    names = [ACTIONS.text(id) for id in commands(controls, 3, DrivingConfig())]
    assert [names[at] for at in (0, 3, 6, 9)] == ["left", "right", "straight", "stop"]


def test_rare_commands_are_drawn_as_often(world: Driving) -> None:
    asked = world.asked("train")
    drawn = world.clips(0, "train", 0, 1000).actions[:, 1]
    assert 0.05 < (asked == 2).mean() < 0.2 and set(drawn.tolist()) == {1, 2} and abs((drawn == 1).mean() - 0.5) < 0.05


def test_clips_go_through_a_recording_and_hang_on_their_moments(world: Driving) -> None:
    found, groups = world.through("dev", 40)
    assert len(found) == len(groups) == 40 and len(set(found.ids)) == 40
    moments = [int(group.rpartition("/")[2]) for group in groups]
    assert min(moments) == 0 and max(moments) == (FRAMES - LAP) // 16 - 2 and len(set(moments)) > 30
    for first, moment in zip(found.frames[:, 0, 0], moments, strict=True):
        near = world.whole.frames[LAP + 16 * moment : LAP + 16 * (moment + 1)]
        assert (near == first).all((1, 2, 3)).any()
    assert len(world.through("test", 999)[0]) == 4 * (20 - 8 + 1)  # every place where two chunks can begin


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_second_lap_comes_by_the_same_places(world: Driving, split: str) -> None:
    found = world.episodes(0, split, "turn", 3, 0, 12)
    assert found.chunks == 33 + 3  # 520 frames of 16 a chunk
    assert all(row[0] == "start" and "new" in row and row[-3:] == ("loop",) * 3 for row in found.phases)
    for episode, chunk in np.argwhere(np.array(found.phases) == "loop"):
        place, gap = found.places[episode, chunk], found.gaps[episode, chunk]
        assert gap == chunk - 1 - place and abs(gap - 32) <= 1


def test_a_chunk_one_lap_later_shows_what_its_place_showed(root: Path) -> None:
    config = DataConfig(world="driving", size="small", chunk=5, root=str(root), driving=DrivingConfig(every=4))
    found = world_of(config).episodes(0, "test", "turn", 2, 0, 4)  # 520 frames are 26 chunks of 20
    again = np.take_along_axis(found.frames[:, :, -1], found.places[:, :, None, None, None], 1)
    assert np.array_equal(again[:, -1], found.frames[:, -1, -1]) and (found.places[:, -1] == 1).all()


def test_the_first_lap_has_no_second(world: Driving) -> None:
    with pytest.raises(UserError, match="family=turn: the train split has one lap; use dev or test"):
        world.episodes(0, "train", "turn", 1, 0, 1)
    with pytest.raises(UserError, match="length=99 chunks in family=turn: the second lap has fewer"):
        world.episodes(0, "test", "turn", 99, 0, 1)
    with pytest.raises(UserError, match="the test split's longest recording has 20 frames, and 36 are asked for"):
        world.episodes(0, "test", "new", 8, 0, 1)


def test_controls_that_do_not_fit_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "driving_sim").mkdir()
    write(tmp_path / "driving_sim" / "session_a.npz", 9, np.zeros((8, 4), np.float32))
    config = DataConfig(world="driving", root=str(tmp_path))
    with pytest.raises(UserError, match="session_b_first.npz is not below it; put it there, or use a generated world"):
        world_of(config)
    write(tmp_path / "driving_sim" / "session_b_first.npz", 9)
    with pytest.raises(UserError, match=r"session_a.npz: 9 images, and actions \[8, 4\]"):
        world_of(config)
