"""Planning: simulators that go where episodes went, and Dist of ways that are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from slowfast_vgen import plan, train
from slowfast_vgen.data import world_of
from slowfast_vgen.planning import carried_out, fvd, put_back, simulator
from slowfast_vgen.scoring import interval_of_all
from slowfast_vgen.worlds.config import DataConfig
from slowfast_vgen.worlds.episode import OUT_AND_BACK, Episodes
from slowfast_vgen.worlds.table import Table
from tests.runs import only_run, run_here
from tests.slowfast_vgen.small import SMALL

WORLDS = {name: world_of(DataConfig(world=name)) for name in ("rooms", "maze")}


class Reading:
    """Reads what it is told to in place of frames: their first value is the action."""

    def actions(self, videos: np.ndarray, given: int) -> np.ndarray:
        assert given == 1
        return videos[:, -1, 0, 0, 0].astype(np.int64)


def told(episodes: Episodes, actions: np.ndarray) -> np.ndarray:
    """Frames that say `actions` [n, chunks]."""
    frames = np.zeros((*episodes.frames.shape[:3], 1, 1, 3))
    frames[..., 0, 0, 0] = actions[..., None]
    return frames


@pytest.mark.parametrize("name", WORLDS)
def test_a_simulator_goes_where_the_episodes_went(name: str) -> None:
    world = WORLDS[name]
    episodes = world.episodes(0, "test", OUT_AND_BACK, 4, 5, 20)
    way = simulator(world, name).follow(
        0, "test", OUT_AND_BACK, np.arange(5, 25), episodes.places[:, 0], episodes.actions[:, 1:]
    )
    np.testing.assert_array_equal(way, episodes.places[:, 1:])


@pytest.mark.parametrize("name", WORLDS)
def test_the_true_actions_come_to_every_way_point_and_home(name: str) -> None:
    world = WORLDS[name]
    episodes = world.episodes(0, "test", OUT_AND_BACK, 4, 0, 20)
    plan = carried_out(world, Reading(), episodes, told(episodes, episodes.actions), 0, "test")  # type: ignore[arg-type]
    assert not plan.dist.any() and not plan.end.any() and (plan.agreement == 1).all()


def test_a_way_back_that_is_not_gone_is_as_far_as_the_way_points() -> None:
    world = WORLDS["rooms"]
    episodes = world.episodes(0, "test", OUT_AND_BACK, 3, 0, 6)
    standing = episodes.actions.copy()
    standing[:, 4:] = 0
    plan = carried_out(world, Reading(), episodes, told(episodes, standing), 0, "test")  # type: ignore[arg-type]
    assert plan.dist.tolist() == [2.0] * 6 and plan.end.tolist() == [3.0] * 6  # way-points 3, 2 and 1 panels off
    assert plan.agreement.tolist() == [0.5] * 6


def test_distances_are_those_of_ring_and_plane() -> None:
    ring, plane = simulator(WORLDS["rooms"], "rooms"), simulator(WORLDS["maze"], "maze")
    assert ring.distance(np.array([0, 1, 7]), np.array([7, 5, 7])).tolist() == [1, 4, 0]
    side = WORLDS["maze"].side  # type: ignore[attr-defined]
    assert plane.distance(np.array([8 * (3 * side + 1) + 2]), np.array([8 * (6 * side + 5) + 7])).tolist() == [5]


def test_blocks_bar_the_way_and_the_null_action_stays() -> None:
    world = simulator(WORLDS["maze"], "maze")
    start = WORLDS["maze"].episodes(0, "test", OUT_AND_BACK, 1, 0, 4).places[:, 0]
    forward = WORLDS["maze"].actions.id("go forward")
    way = world.follow(0, "test", OUT_AND_BACK, np.arange(4), start, np.full((4, 40), forward))
    assert (way[:, -1] == way[:, -2]).all()  # the rim is walled
    stay = world.follow(0, "test", OUT_AND_BACK, np.arange(4), start, np.zeros((4, 2), int))
    np.testing.assert_array_equal(stay, np.stack([start, start], 1))


def test_cubes_that_are_left_where_they_are_miss_their_places() -> None:
    world = world_of(DataConfig(world="table"))
    assert isinstance(world, Table)
    episodes = world.episodes(0, "test", OUT_AND_BACK, 2, 0, 20)
    plan = put_back(world, episodes, episodes.frames)
    assert not plan.dist.any() and not plan.end.any() and (plan.agreement == 1).all()
    idle = episodes.frames.copy()
    idle[:, 3:] = idle[:, 2:3, -1:]  # taken to the green area and left there
    plan = put_back(world, episodes, idle / 255.0)
    cube = world.moved(episodes.actions[:, 1:3])
    first, there = (np.take_along_axis(world.read(episodes.frames[:, chunk, -1]), cube, 1) for chunk in (0, 2))
    apart = world.distance(first, there)
    np.testing.assert_allclose(plan.dist, apart.mean(1))
    np.testing.assert_allclose(plan.end, apart[:, 0])  # taken first, brought back last
    assert plan.agreement.tolist() == [0.5] * 20


class Seeing:
    """Sees the mean colour of the first and of the last frame of clips of two chunks."""

    def motions(self, clips: np.ndarray) -> np.ndarray:
        assert clips.shape[1:] == (4, 8, 16, 3)
        return clips[:, [0, -1]].mean((2, 3)).reshape(len(clips), -1) / 255


def test_fvd_grows_with_what_is_not_true_and_its_interval_leaves_out_episodes() -> None:
    frames = WORLDS["rooms"].episodes(0, "test", OUT_AND_BACK, 2, 0, 12).frames
    near, far = frames.copy(), np.zeros_like(frames)
    near[:2, 3] = 0
    same, little, much = (fvd(Seeing(), frames, made) for made in (frames, near, far))  # type: ignore[arg-type]
    assert same.value == pytest.approx(0, abs=1e-9) and len(same.without) == 12
    interval = interval_of_all("fvd", little, 0.95)
    assert 0 < little.value < much.value and interval.low < little.value < interval.high and interval.count == 12


def test_recordings_cannot_be_acted_in() -> None:
    with pytest.raises(UserError, match="data.world=driving: recordings cannot be acted in; plan with a run of rooms,"):
        simulator(object(), "driving")  # type: ignore[arg-type]


def test_a_run_plans_and_the_oracle_stands_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(train.main, *SMALL, "method=temp_lora", f"loop.root={tmp_path}") == 0
    folder = only_run(tmp_path)
    assert run_here(plan.main, f"run={folder}", "episodes=6", "features.steps=20", "features.batch=16") == 0
    found = json.loads((folder / "plan.json").read_text())
    assert list(found) == [plan.ORACLE, plan.WITHOUT, plan.WITH]
    assert all(set(row) == {"dist", "end", "agreement", "fvd"} and row["dist"]["count"] == 6 for row in found.values())
    assert "distance at the end" in capsys.readouterr().out
    assert run_here(plan.main, f"run={folder}", "episodes=1") != 0
    assert "episodes=1: an interval needs 3 or more" in capsys.readouterr().err


def test_a_run_on_the_table_plans_and_fvd_stands_beside_that_of_other_episodes(tmp_path: Path) -> None:
    words = ("+experiment=table", *SMALL[1:], "slow.steps=2", "evaluation.ahead=0", "method=temp_lora")
    assert run_here(train.main, *words, f"loop.root={tmp_path}") == 0
    folder = only_run(tmp_path)
    assert run_here(plan.main, f"run={folder}", "episodes=4", "length=3", "features.steps=2") == 0
    found = json.loads((folder / "plan.json").read_text())
    assert list(found) == [plan.ORACLE, plan.WITHOUT, plan.WITH]
    assert all(row["fvd"]["value"] > 0 and row["fvd"]["count"] == 4 for row in found.values())
    assert found[plan.ORACLE]["dist"]["value"] == 0 < found[plan.WITHOUT]["dist"]["value"]
