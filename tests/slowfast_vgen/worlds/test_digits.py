"""Digits: motion on command, MNIST where it is there."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest

from common.data.splits import SPLITS, belongs
from common.errors import UserError
from slowfast_vgen.data import available, world_of
from slowfast_vgen.worlds.config import DataConfig, DigitsConfig
from slowfast_vgen.worlds.digits import DEV, Digits

SIZES = pytest.mark.parametrize("size", ["small", "large"])


def digits(size: str = "small", root: Path | None = None, **given: object) -> Digits:
    config = DigitsConfig(**{"source": "glyphs", **given})  # type: ignore[arg-type]
    world = world_of(DataConfig(world="digits", size=size, digits=config, root=root and str(root)))
    assert isinstance(world, Digits)
    return world


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Training images of brightness 1 and, the dev split's, 2; test images of brightness 3."""
    (tmp_path / "mnist").mkdir()
    shades = {"train": [1] * 9 + [2] * DEV, "t10k": [3] * 7}
    for name, shade in shades.items():
        header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (len(shade), 28, 28))
        body = np.repeat(np.array(shade, np.uint8), 28 * 28).tobytes()
        (tmp_path / "mnist" / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + body, 1))
    return tmp_path


@pytest.mark.parametrize("family", ["clips", *Digits.families])
def test_an_item_depends_on_seed_split_and_number_alone(family: str) -> None:
    def frames(first: int, count: int) -> np.ndarray:
        if family == "clips":
            return digits().clips(1, "dev", first, count, 3).frames
        return digits().episodes(1, "dev", family, 2, first, count).frames

    assert np.array_equal(frames(4, 1)[0], frames(0, 6)[4])


@SIZES
def test_a_retraced_path_shows_the_same_bits_and_its_gaps(size: str) -> None:
    found = digits(size).episodes(0, "test", "out_and_back", 4, 0, 20)
    for back in range(1, 5):
        assert np.array_equal(found.frames[:, 4 + back, -1], found.frames[:, 4 - back, -1])
    assert (found.gaps == [-1] * 5 + [0, 2, 4, 6]).all()


def test_digits_move_as_they_are_told() -> None:
    world = digits("large")
    found = world.clips(0, "train", 0, 60)
    for episode in range(60):
        name = world.actions.text(int(found.actions[episode, 1])).split()[1]
        before, after = found.frames[episode, 0, -1], found.frames[episode, 1, 0]
        quarter = 8  # a chunk has four frames of 32 pixels
        kept = {
            "up": np.array_equal(after[:-quarter], before[quarter:]),
            "down": np.array_equal(after[quarter:], before[:-quarter]),
            "left": np.array_equal(after[:, :-quarter], before[:, quarter:]),
            "right": np.array_equal(after[:, quarter:], before[:, :-quarter]),
        }
        assert kept[name]


def test_a_full_turn_comes_round_to_the_same_bits() -> None:
    found = digits().episodes(0, "test", "turn", 2, 0, 8)
    assert found.chunks == 6 and np.array_equal(found.frames[:, :2], found.frames[:, 4:])
    assert found.phases[0] == ("start", "new", "new", "loop", "loop", "loop")


@SIZES
def test_the_nearest_glyph_is_the_one_that_stands_there(size: str) -> None:
    found = digits(size).episodes(0, "test", "out_and_back", 3, 0, 30)
    assert np.array_equal(
        digits(size).look(found.frames[:, :, -1].reshape(-1, *found.frames.shape[3:])), found.looks.ravel()
    )


def test_splits_share_no_layout_of_glyphs_however_it_is_moved() -> None:
    world = digits(side=3)
    of = {split: world.layouts(0, split, "clips", np.arange(100)) for split in SPLITS}
    assert all(belongs(text, split) for split in SPLITS for text in world.contents(of[split]))
    moved = np.roll(of["test"].reshape(-1, 3, 3), (1, 2), (1, 2)).reshape(-1, 9)
    assert list(world.contents(moved)) == list(world.contents(of["test"]))


def test_each_split_has_its_own_digits_of_mnist(mnist: Path) -> None:
    world = digits("large", mnist, source="mnist")
    shades = {split: world.clips(0, split, 0, 3).frames for split in SPLITS}
    assert [int(shades[split].max()) for split in SPLITS] == [1, 2, 3]
    assert set(np.unique(shades["test"])) == {0, 3}
    assert (world.look(shades["test"][:, 0]) == -1).all() and (world.clips(0, "dev", 0, 2).looks == -1).all()


def test_without_mnist_glyphs_take_its_place_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = DataConfig(world="digits", root=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = available(config)
    assert found.digits == DigitsConfig(source="glyphs", stands_for="mnist")
    assert "drawn glyphs take its place, and no number is one on MNIST" in caplog.text
    with pytest.raises(UserError, match="mnist/train-images-idx3-ubyte are? not below it|is not below it"):
        world_of(config)


def test_with_mnist_the_settings_stay(mnist: Path) -> None:
    config = DataConfig(world="digits", root=str(mnist))
    assert available(config) is config


@pytest.mark.parametrize(
    "given, message", [({"source": "svhn"}, "data.digits.source=svhn: use mnist or"), ({"side": 2}, "side=2: use 3 to")]
)
def test_settings_that_cannot_work_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DigitsConfig(**given)  # type: ignore[arg-type]
