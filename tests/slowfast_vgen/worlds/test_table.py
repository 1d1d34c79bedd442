"""Table: what cubes do and where they come back to."""

import numpy as np
import pytest

from common.data.splits import SPLITS, belongs
from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.worlds.config import DataConfig, TableConfig
from slowfast_vgen.worlds.table import GREEN, GRIPPER, INKS, Table, contents

SIZES = pytest.mark.parametrize("size", ["small", "large"])


def table(size: str = "small", **given: int) -> Table:
    world = world_of(DataConfig(world="table", size=size, table=TableConfig(**given)))
    assert isinstance(world, Table)
    return world


def pixels(frames: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (frames == colour).all(-1)


@pytest.mark.parametrize("family", ["clips", *Table.families])
def test_an_item_depends_on_seed_split_and_number_alone(family: str) -> None:
    def frames(first: int, count: int) -> np.ndarray:
        if family == "clips":
            return table().clips(1, "dev", first, count, 3).frames
        return table().episodes(1, "dev", family, 2, first, count).frames

    assert np.array_equal(frames(4, 1)[0], frames(0, 6)[4])


@SIZES
@pytest.mark.parametrize("length", [1, 4])
def test_a_way_back_shows_the_same_bits(size: str, length: int) -> None:
    found = table(size).episodes(0, "test", "out_and_back", length, 0, 20)
    for back in range(1, length + 1):
        assert np.array_equal(found.frames[:, length + back, -1], found.frames[:, length - back, -1])
        ahead, behind = found.frames[:, length + 1 - back, :-1], found.frames[:, length + back, :-1]
        assert np.array_equal(ahead, behind[:, ::-1])
    assert (found.gaps[:, length + 1 :] == 2 * np.arange(length)).all()


def test_commands_say_what_happens() -> None:
    world = table()
    found = world.episodes(0, "test", "out_and_back", 1, 0, 30)
    for episode in range(30):
        out, back = (world.actions.text(id) for id in found.actions[episode, 1:].tolist())
        cube = next(name for name in INKS if name in out)
        assert out == f"move the {cube} cube to the green area" and back == f"return the {cube} cube to its place"
        assert found.actions[episode, 0] == 0 and (found.frames[episode, 0] == found.frames[episode, 0, :1]).all()
        start, end = (pixels(found.frames[episode, chunk, -1], INKS[cube]) for chunk in (0, 1))
        assert start.sum() == end.sum() > 0 and not np.array_equal(start, end)
        others = [name for name in INKS if name != cube]
        same = (np.array_equal(*(pixels(found.frames[episode, k, -1], INKS[name]) for k in (0, 1))) for name in others)
        assert all(same)
        assert (pixels(found.frames[episode, 0, -1], GREEN) >= pixels(found.frames[episode, 1, -1], GREEN)).all()


@SIZES
def test_where_cubes_stand_is_read_off_a_frame(size: str) -> None:
    world = table(size)
    spots = world.layouts(0, "test", "new", np.arange(50))[:, 1:]
    found = world.episodes(0, "test", "new", 2, 0, 50)
    assert np.array_equal(world.read(found.frames[:, 0, -1]), spots)
    assert np.array_equal(world.read(found.frames[:, 0, -1] / 255.0), spots)
    there = world.read(found.frames[:, 2, -1])
    cube = world.moved(found.actions)
    assert (cube[:, 0] == -1).all()
    moved = there != spots
    assert (moved.sum(1) == 2).all() and np.take_along_axis(moved, cube[:, 1:], 1).all()


def test_each_action_says_which_cube_it_moves() -> None:
    world = table(cubes=3)
    ids = np.arange(1, world.actions.count)
    wanted = [world.cubes.index(world.actions.text(id).split()[2]) for id in ids.tolist()]
    assert world.moved(ids).tolist() == wanted


def test_distances_are_those_of_the_grid() -> None:
    assert table().distance(np.array([0, 7]), np.array([4, 24])).tolist() == [4, np.hypot(3, 2)]


def test_each_command_with_an_inverse_is_taken_back_by_it() -> None:
    actions = table().actions
    assert actions.count == 1 + 4 + 4 + 12
    assert actions.text(actions.inverse(actions.id("move the pink cube to the green area"))) == (
        "return the pink cube to its place"
    )


def test_another_cube_comes_to_where_one_was() -> None:
    world = table()
    found = world.episodes(0, "test", "turn", 2, 0, 20)
    assert (found.gaps[:, 3:] == [0, 2]).all() and found.phases[0] == ("start", "new", "new", "replay", "loop")
    for episode in range(20):
        words = world.actions.text(int(found.actions[episode, 4])).split()
        put, was = words[2], words[6]
        there = pixels(found.frames[episode, 0, -1], INKS[was])
        assert np.array_equal(pixels(found.frames[episode, 4, -1], INKS[put]), there)


def test_the_gripper_is_seen_while_it_carries_only() -> None:
    frames = table("large").clips(0, "train", 0, 40, 4).frames
    assert not pixels(frames[:, :, -1], GRIPPER).any() and pixels(frames[:, 1:, :-1], GRIPPER).any((-1, -2)).all()


def test_half_of_the_commands_of_clips_take_back_the_one_before() -> None:
    world = table()
    found = world.clips(0, "train", 0, 600)
    moved = found.actions[:, 0] > 0
    back = (found.frames[:, 1, :-1] == found.frames[:, 0, -2::-1]).all((1, 2, 3, 4))
    assert 0.2 < 1 - moved.mean() < 0.3 and 0.4 < back[moved].mean() < 0.6


@SIZES
def test_cubes_keep_their_size_and_do_not_meet_when_they_stand(size: str) -> None:
    world = table(size)
    frames = world.clips(0, "train", 0, 200, 4).frames[:, :, -1]
    counts = np.stack([pixels(frames, ink).sum((-1, -2)) for ink in INKS.values()])
    assert (counts == counts[0, 0, 0]).all()


def test_splits_share_no_layout() -> None:
    of = {split: set(contents(table().layouts(0, split, "clips", np.arange(200)))) for split in SPLITS}
    assert all(belongs(text, split) for split in SPLITS for text in of[split])
    assert not of["train"] & of["dev"] and not of["train"] & of["test"] and not of["dev"] & of["test"]


def test_more_cubes_than_there_are_are_refused() -> None:
    with pytest.raises(UserError, match="length=4 chunks out in family=new: use 1 to 3 .data.table.cubes=3"):
        table(cubes=3).episodes(0, "test", "new", 4, 0, 1)
    with pytest.raises(UserError, match="data.table.cubes=5: use 2 to 4"):
        TableConfig(cubes=5)
