"""Rooms: what is shown when, by hand and by bits."""

import dataclasses

import numpy as np
import pytest

from common.data.splits import SPLITS, belongs
from common.errors import UserError
from slowfast_vgen.data import world_of
from slowfast_vgen.worlds.config import DataConfig, RoomsConfig
from slowfast_vgen.worlds.episode import Episodes
from slowfast_vgen.worlds.rooms import Rooms, contents

SIZES = pytest.mark.parametrize("size", ["small", "large"])


def rooms(size: str = "small", **given: int) -> Rooms:
    world = world_of(DataConfig(size=size, rooms=RoomsConfig(**given)))
    assert isinstance(world, Rooms)
    return world


def same(a: Episodes, b: Episodes) -> bool:
    pairs = ((getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(Episodes))
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


@pytest.mark.parametrize("size, shape", [("small", (2, 8, 16, 3)), ("large", (4, 16, 32, 3))])
def test_both_sizes_have_their_shape(size: str, shape: tuple[int, ...]) -> None:
    found = rooms(size).clips(0, "train", 0, 3)
    assert found.frames.shape == (3, 2, *shape) and found.frames.dtype == np.uint8


@pytest.mark.parametrize("family", ["clips", *Rooms.families])
def test_an_item_depends_on_seed_split_and_number_alone(family: str) -> None:
    def made(seed: int, split: str, first: int, count: int) -> Episodes:
        world = rooms()
        if family == "clips":
            return world.clips(seed, split, first, count, 4)
        return world.episodes(seed, split, family, 3, first, count)

    many = made(3, "dev", 0, 9)
    assert all(same(made(3, "dev", first, 1), many.at([first])) for first in (0, 4, 8))
    assert not same(made(4, "dev", 0, 9), many) and not same(made(3, "test", 0, 9), many)


def test_a_longer_episode_of_the_same_number_begins_as_the_shorter() -> None:
    short, long = (rooms().episodes(0, "test", "out_and_back", length, 0, 5) for length in (2, 4))
    assert np.array_equal(short.frames[:, :3], long.frames[:, :3])


@SIZES
@pytest.mark.parametrize("length", [1, 2, 6])
def test_a_retraced_path_shows_the_same_bits(size: str, length: int) -> None:
    found = rooms(size).episodes(0, "test", "out_and_back", length, 0, 20)
    assert found.chunks == 2 * length + 1
    for back in range(1, length + 1):
        assert np.array_equal(found.frames[:, length + back, -1], found.frames[:, length - back, -1])
        ahead, behind = found.frames[:, length + 1 - back, :-1], found.frames[:, length + back, :-1]
        assert np.array_equal(ahead, behind[:, ::-1])  # between two panels: there and back


@SIZES
def test_a_full_turn_comes_back_by_the_other_way_to_the_same_bits(size: str) -> None:
    found = rooms(size).episodes(0, "test", "turn", 3, 0, 20)
    assert found.chunks == 8 + 3
    assert (found.actions == found.actions[:, :1]).all()
    assert np.array_equal(found.frames[:, 1:3], found.frames[:, 9:11])
    assert np.array_equal(found.frames[:, 0], found.frames[:, 8])


@SIZES
def test_nothing_of_the_next_panel_is_visible_before_it_is_reached(size: str) -> None:
    world = rooms(size)
    found = world.episodes(0, "test", "new", 6, 0, 10)
    layouts = world.layouts(0, "test", "new", np.arange(10))
    rows = np.arange(10)
    for chunk in range(6):
        changed = layouts.copy()
        changed[rows, found.places[:, chunk + 1]] = (layouts[rows, found.places[:, chunk + 1]] + 1) % 8
        turned = (found.places[:, :1] + np.arange(-1, 7) * np.where(found.actions[:, :1] == 2, 1, -1)) * world.chunk
        shown, other = (world.render(each, turned[:, : chunk + 2]) for each in (layouts, changed))
        assert np.array_equal(shown, other)
        assert np.array_equal(shown[:, 1:], found.frames[:, : chunk + 1, -1])
        both = world.render(changed, found.places[:, chunk + 1 : chunk + 2] * world.chunk)
        assert not np.array_equal(both[:, 0], found.frames[:, chunk + 1, -1])


def test_every_frame_but_the_last_of_a_chunk_shows_both_panels() -> None:
    world = rooms()
    halfway = world.episodes(0, "test", "new", 3, 0, 8)
    for episode, chunk in np.ndindex(8, 4):
        if halfway.actions[episode, 0] == 2 and chunk:
            before, after = world.pictures[halfway.looks[episode, chunk - 1 : chunk + 1]]
            wanted = np.concatenate([before[:, 8:], after[:, :8]], 1)
            assert np.array_equal(halfway.frames[episode, chunk, 0], wanted)


def test_gaps_and_phases_out_and_back_by_hand() -> None:
    found = rooms().episodes(0, "test", "out_and_back", 3, 0, 6)
    assert (found.gaps == [-1, -1, -1, -1, 0, 2, 4]).all()
    assert set(found.phases) == {("start", "new", "new", "new", "replay", "return", "return")}


def test_gaps_and_phases_of_a_full_turn_by_hand() -> None:
    found = rooms(panels=3).episodes(0, "test", "turn", 2, 0, 6)  # A B C A B
    assert (found.gaps == [-1, -1, 1, 1, 1]).all()  # C was behind in the first chunk's first frame
    assert set(found.phases) == {("start", "new", "loop", "loop", "loop")}


def test_gaps_of_a_walk_by_hand() -> None:
    found = rooms().clips(0, "train", 0, 400, 5)
    right, left = 2, 1
    rows = [row for row, each in enumerate(found.actions.tolist()) if each == [right, right, right, left, left]]
    assert rows and (found.gaps[rows] == [-1, -1, -1, 0, 2]).all()
    stay = [row for row, each in enumerate(found.actions.tolist()) if each == [right, left, right, left, right]]
    assert stay and (found.gaps[stay] == [-1, 0, 0, 0, 0]).all()


def test_the_control_never_sees_a_place_twice() -> None:
    found = rooms().episodes(0, "test", "new", 6, 0, 6)
    assert (found.gaps == -1).all() and all(len(set(row)) == 7 for row in found.places.tolist())


@SIZES
def test_the_nearest_picture_is_the_one_that_hangs_there(size: str) -> None:
    world = rooms(size, pictures=32)
    found = world.episodes(0, "test", "out_and_back", 4, 0, 50)
    assert np.array_equal(
        world.look(found.frames[:, :, -1].reshape(-1, *world.pictures.shape[1:])), found.looks.ravel()
    )


def test_a_picture_is_known_under_noise() -> None:
    world = rooms()
    noise = np.random.default_rng(0).normal(0, 40, (50, *world.pictures.shape))
    shown = np.clip(world.pictures + noise, 0, 255).astype(np.uint8).reshape(-1, *world.pictures.shape[1:])
    assert (world.look(shown) == np.tile(np.arange(8), 50)).mean() > 0.99


def test_splits_share_no_layout_however_it_is_turned() -> None:
    world = rooms()
    of = {split: world.layouts(0, split, "clips", np.arange(300)) for split in SPLITS}
    texts = {split: set(contents(layouts)) for split, layouts in of.items()}
    assert all(belongs(text, split) for split in SPLITS for text in texts[split])
    assert not texts["train"] & texts["dev"] and not texts["train"] & texts["test"] and not texts["dev"] & texts["test"]
    assert list(contents(np.roll(of["train"], 3, 1))) == list(contents(of["train"]))
    assert len(texts["train"]) > 295


def test_pictures_and_turns_are_drawn_evenly() -> None:
    found = rooms().clips(0, "train", 0, 4000)
    assert np.abs(np.bincount(found.looks[:, 1]) / 4000 - 1 / 8).max() < 0.025
    assert abs((found.actions[:, 0] != found.actions[:, 1]).mean() - 0.5) < 0.03


def test_more_chunks_than_panels_are_refused() -> None:
    with pytest.raises(UserError, match="length=7 chunks out in family=out_and_back: use 1 to 6 .data.rooms.panels=8"):
        rooms().episodes(0, "test", "out_and_back", 7, 0, 1)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UserError, match="family=loop: this world has out_and_back, turn, new"):
        rooms().episodes(0, "test", "loop", 2, 0, 1)


def test_too_few_layouts_for_a_split_are_refused() -> None:
    with pytest.raises(UserError, match="data.rooms.panels=3, data.rooms.pictures=2: too few different contents, the"):
        for split in SPLITS:
            rooms(panels=3, pictures=2).clips(0, split, 0, 1)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"world": "room"}, "data.world=room: use one of rooms"),
        ({"size": "huge"}, "data.size=huge: use one of small, large"),
        ({"width": 4}, "data.width=4: use 8 or more"),
        ({"chunk": 0}, "data.chunk=0: use 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**given)  # type: ignore[arg-type]


def test_a_key_takes_precedence_over_the_size() -> None:
    assert DataConfig(size="large", chunk=2).shape == (16, 32, 2)


def test_a_picture_cannot_be_asked_for_twice() -> None:
    with pytest.raises(UserError, match="data.rooms.pictures=33: use 2 to 32"):
        RoomsConfig(pictures=33)
