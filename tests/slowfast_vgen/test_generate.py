"""Playing a run: what is written, where it begins, memories that are kept and opened, and bad input by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from slowfast_vgen import generate, train
from slowfast_vgen.generate import ids_of
from slowfast_vgen.playing import SWAPPED, WITH, WITHOUT, begin, check_context, play
from tests.runs import only_run, run_here
from tests.slowfast_vgen.small import SMALL, parts

FOUR = "turn right, turn right, turn left, turn left"
RIGHT, LEFT = 2, 1
BACK = [RIGHT, RIGHT, LEFT, LEFT]
FAST = ("method=temp_lora", "fast.lr=0.1", "fast.steps=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert run_here(train.main, *SMALL, *FAST, f"loop.root={root}") == 0
    return only_run(root)


def test_a_run_and_actions_give_a_video_and_a_sheet_in_its_media(run: Path) -> None:
    assert run_here(generate.main, f"run={run}", f"actions='{FOUR}'") == 0
    names = sorted(path.name for path in (run / "media").glob("generated*"))
    assert names == [f"generated-turn-right-turn-right-turn-left-turn-left-0.{kind}" for kind in ("gif", "png")]


def test_a_memory_is_kept_and_gone_on_with(run: Path, tmp_path: Path) -> None:
    words = (f"run={run}", "actions='turn left'", f"out={tmp_path / 'a.gif'}")
    assert run_here(generate.main, *words, f"save_memory={tmp_path / 'a'}") == 0
    assert {"memory.json", "adapter_config.json"} <= {path.name for path in (tmp_path / "a").iterdir()}
    assert run_here(generate.main, *words, f"memory={tmp_path / 'a'}", f"save_memory={tmp_path / 'b'}") == 0
    assert '"chunks": 2' in (tmp_path / "b" / "memory.json").read_text()
    assert run_here(generate.main, *words, f"memory={tmp_path / 'gone'}") != 0


def test_a_picture_of_the_worlds_size_begins_the_video(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "frame.png"
    Image.new("RGB", (16, 8), (200, 0, 0)).save(place)
    words = (f"run={run}", "actions='turn left'", f"out={tmp_path / 'a.gif'}")
    assert run_here(generate.main, *words, f"first={place}") == 0
    assert (tmp_path / "a.gif").is_file() and (tmp_path / "a.png").is_file()


def test_the_truth_is_a_test_walk_that_goes_the_same_way() -> None:
    found, config = parts()
    start = begin(found.world, config.data.seed, BACK, None, 0)
    assert start.truth is not None
    split, family, number = start.id.split("/")
    walk = found.world.clips(config.data.seed, split, int(number), 1, 5)
    assert walk.actions[0, 1:].tolist() == BACK and family == "clips"
    np.testing.assert_array_equal(start.truth, walk.frames[0].reshape(-1, 8, 16, 3))
    assert begin(found.world, config.data.seed, [LEFT, RIGHT] * 10, None, 0).truth is None


def test_all_videos_begin_alike_and_memories_make_them_differ() -> None:
    found, config = parts(*FAST)
    found.lora.attach()
    start = begin(found.world, config.data.seed, BACK, None, 0)
    played = play(found, config, start, BACK)
    assert list(played.videos) == [WITHOUT, WITH, SWAPPED] and played.memory.chunks == 4
    alone, own, other = played.videos.values()
    np.testing.assert_array_equal(alone[:4], own[:4])  # the first chunk is given; nothing is known of it yet
    assert len({each[4:].tobytes() for each in (alone, own, other)}) == 3
    again = play(found, config, start, BACK)
    np.testing.assert_array_equal(again.videos[WITH], own)


def test_an_opened_memory_belongs_to_the_first_episode_alone() -> None:
    found, config = parts(*FAST)
    found.lora.attach()
    start = begin(found.world, config.data.seed, BACK, None, 0)
    first = play(found, config, start, BACK).memory
    one = type(first)(("a",), {name: value[:1] for name, value in first.weights.items()}, chunks=4)
    played = play(found, config, start, BACK, one)
    alone = play(found, config, start, BACK)
    assert not np.array_equal(played.videos[WITH][2:4], alone.videos[WITH][2:4])
    np.testing.assert_array_equal(played.videos[WITHOUT], alone.videos[WITHOUT])
    np.testing.assert_array_equal(played.videos[SWAPPED][2:4], alone.videos[SWAPPED][2:4])
    assert played.memory.chunks == 8 and all(torch.isfinite(each).all() for each in played.memory.weights.values())


@pytest.mark.parametrize(
    "words, message",
    [
        (["actions='jump'"], "action 'jump' is unknown"),
        (["actions=','"], "actions=',': name one or more, with commas between; known are turn left, turn right"),
        (["actions='turn left'", "item=-1"], "item=-1: test episodes are numbered from 0"),
        (["actions='turn left'", "first=gone.png"], "first=gone.png: no picture that can be read"),
        (["actions='turn left'", "fps=0"], "fps=0: a video needs more than 0 frames a second"),
        (["actions='turn left'", "out=a.avi"], "out=a.avi: the name of a video ends in .gif or .mp4"),
    ],
)
def test_bad_input_is_named(run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(generate.main, f"run={run}", *words) != 0
    assert message in capsys.readouterr().err


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (16, 9)).save(tmp_path / "a.png")
    found, config = parts()
    with pytest.raises(UserError, match=r"a\.png: 16x9 pixels, this run's frames have 16x8; scale the picture"):
        begin(found.world, config.data.seed, BACK, str(tmp_path / "a.png"), 0)


def test_a_run_without_memory_refuses_to_keep_one(tmp_path: Path) -> None:
    _, config = parts("method=slow")
    with pytest.raises(UserError, match="save_memory=a: method=slow of run=here has no memory; leave save_memory out"):
        generate.check(generate.GenerateConfig("here", FOUR, save_memory="a"), config)


def test_a_method_that_sees_more_of_the_true_episode_is_refused() -> None:
    _, config = parts("method=retrieval")
    with pytest.raises(
        UserError, match=r"run=here: method=retrieval is given more .*context=retrieval.*another method"
    ):
        check_context(config.method, "here")


def test_actions_are_read_whatever_stands_between_them() -> None:
    found, _ = parts()
    assert ids_of("Turn  Right;turn left,\nturn right,", found.world.actions) == [RIGHT, LEFT, RIGHT]
