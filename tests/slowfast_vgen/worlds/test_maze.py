"""Maze: poses, walls and what comes back."""

import math

import numpy as np
import pytest

from common.data.splits import SPLITS, belongs
from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.worlds.config import DataConfig, MazeConfig
from slowfast_vgen.worlds.maze import ACTIONS, HEADINGS, Maze, contents
from slowfast_vgen.worlds.raycast import FIELD, cast, directions


def maze(**given: float) -> Maze:
    world = world_of(DataConfig(world="maze", maze=MazeConfig(**given)))  # type: ignore[arg-type]
    assert isinstance(world, Maze)
    return world


def test_a_ray_straight_ahead_meets_a_wall_where_geometry_says() -> None:
    blocks = np.zeros((1, 7, 7), int)
    blocks[:, [0, -1]] = blocks[:, :, [0, -1]] = 1
    position, towards = np.array([[[2.5, 3.25]]]), np.array([[[1.0, 0.0]]])
    distance, along, cell, face, _ = cast(blocks, position, towards, 5)  # the middle ray goes straight ahead
    assert distance[0, 0, 2] == 3.5 and along[0, 0, 2] == 0.25 and cell[0, 0, 2] == 6 * 7 + 3 and face[0, 0, 2] == 1
    slope = FIELD * 4 / 5
    assert distance[0, 0, 4] == pytest.approx(min(3.5, 2.75 / slope))


def test_distances_agree_with_marching_along_the_rays() -> None:
    rng = np.random.default_rng(0)
    blocks = (rng.random((3, 9, 9)) < 0.3).astype(int)
    blocks[:, [0, -1]] = blocks[:, :, [0, -1]] = 1
    blocks[:, 3:6, 3:6] = 0
    position, towards = rng.uniform(3.1, 5.9, (3, 4, 2)), directions(16)[rng.integers(0, 16, (3, 4))]
    distance, *_, ray = cast(blocks, position, towards, 8)
    for place in np.ndindex(distance.shape):
        at = position[place[:2]] + np.arange(0, 15, 1e-3)[:, None] * ray[place]
        x, y = np.floor(at).astype(int).clip(0, 8).T
        assert blocks[place[0], x, y].argmax() * 1e-3 == pytest.approx(distance[place], abs=2e-3)


def test_quarter_turns_are_exact_and_vectors_have_length_one() -> None:
    unit = directions(32)
    assert np.allclose((unit**2).sum(1), 1) and unit[4, 1] == pytest.approx(math.sin(math.pi / 4))
    assert np.array_equal(unit[8:16], np.stack([-unit[:8, 1], unit[:8, 0]], 1))


@pytest.mark.parametrize("family", ["clips", *Maze.families])
def test_an_item_depends_on_seed_split_and_number_alone(family: str) -> None:
    def frames(first: int, count: int) -> np.ndarray:
        if family == "clips":
            return maze().clips(1, "dev", first, count, 3).frames
        return maze().episodes(1, "dev", family, 2, first, count).frames

    assert np.array_equal(frames(4, 1)[0], frames(0, 6)[4])


def test_a_retraced_path_shows_the_same_bits_and_its_gaps() -> None:
    found = maze().episodes(0, "test", "out_and_back", 5, 0, 20)
    for back in range(1, 6):
        assert np.array_equal(found.frames[:, 5 + back, -1], found.frames[:, 5 - back, -1])
    assert (found.gaps == [-1] * 6 + [0, 2, 4, 6, 8]).all()


@pytest.mark.parametrize("action", range(1, ACTIONS.count))
def test_each_action_is_taken_back_exactly_by_its_inverse(action: int) -> None:
    world = maze()
    cells = np.array([x * 9 + y for x in range(2, 7) for y in range(2, 7)])
    places = (cells[:, None] * HEADINGS + np.arange(HEADINGS)).ravel()
    free = np.zeros((len(places), 81), int)
    there = world._neighbours(free, places)[:, action - 1]
    assert (there != places).all()
    assert np.array_equal(world._neighbours(free, there)[:, ACTIONS.inverse(action) - 1], places)


def test_nobody_walks_through_a_block_or_cuts_a_corner() -> None:
    world = maze(blocks=0.5)
    found = world.clips(0, "train", 0, 60, 12)
    blocks = world.maps(0, "train", "clips", np.arange(60))[:, :, 0].reshape(60, 9, 9)
    x, y = np.divmod(found.places // HEADINGS, 9)
    rows = np.arange(60)[:, None]
    assert not blocks[rows, x, y].any()
    assert not blocks[rows, x[:, 1:], y[:, :-1]].any() and not blocks[rows, x[:, :-1], y[:, 1:]].any()
    assert len(np.unique(found.places)) > 100


def test_a_full_turn_comes_round_to_the_same_bits() -> None:
    found = maze().episodes(0, "test", "turn", 2, 0, 6)
    assert found.chunks == 10 and np.array_equal(found.frames[:, 0:2], found.frames[:, 8:10])
    assert found.phases[0] == ("start", *["new"] * 6, "loop", "loop", "loop")


def test_the_control_never_sees_a_pose_twice() -> None:
    found = maze().episodes(0, "test", "new", 8, 0, 20)
    assert all(len(set(row)) == 9 for row in found.places.tolist())


def test_splits_share_no_map() -> None:
    of = {split: set(contents(maze().maps(0, split, "clips", np.arange(60)))) for split in SPLITS}
    assert all(belongs(text, split) for split in SPLITS for text in of[split])
    assert len(set.union(*of.values())) == 180


def test_there_is_no_catalogue() -> None:
    found = maze().clips(0, "train", 0, 2)
    assert (found.looks == -1).all() and (maze().look(found.frames[:, 0]) == -1).all()


@pytest.mark.parametrize("given, message", [({"side": 4}, "data.maze.side=4: use 5"), ({"blocks": 1}, "blocks=1: use")])
def test_a_maze_without_room_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MazeConfig(**given)  # type: ignore[arg-type]
