"""`python -m slowfast_vgen.data`: counts, audits and sheets."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slowfast_vgen import data
from slowfast_vgen.audit import SplitAudit, audit, copied, inside_window, overlaps
from slowfast_vgen.data import world_of
from slowfast_vgen.worlds.config import SHAPES, DataConfig

GENERATED = ("rooms", "maze", "table")


def test_copying_the_last_frame_by_hand() -> None:
    clips = world_of(DataConfig()).clips(0, "train", 0, 2)
    frames = np.full_like(clips.frames, 100)
    frames[0, 1] = 110  # an error of 10 in one clip, none in the other
    found = copied(dataclasses.replace(clips, frames=frames))
    assert found[0] == pytest.approx(20 * np.log10(25.5)) and found[1] > 60


def test_the_share_inside_the_window_by_hand() -> None:
    episodes = world_of(DataConfig()).episodes(0, "test", "out_and_back", 2, 0, 5)
    assert inside_window(episodes) == 1 / 4  # of c1, c2, r1, r2 the third


def test_the_share_is_unknown_where_places_are() -> None:
    episodes = world_of(DataConfig()).episodes(0, "test", "new", 2, 0, 5)
    assert inside_window(episodes) == 0
    assert inside_window(dataclasses.replace(episodes, places=np.full_like(episodes.places, -1))) is None


def test_an_audit_counts_what_is_there() -> None:
    found = audit(world_of(DataConfig()), 0, "dev")
    assert sum(found.counts.values()) == 1000 and set(found.counts) == {"turn left", "turn right"}
    assert found.frequent[1] == max(found.counts.values()) / 1000 < 0.56
    assert found.inside["new"] == 0 and 9 < found.copied < 13 and len(found.prints) == 32


def test_episodes_in_two_splits_are_counted() -> None:
    a, b, c = (SplitAudit({"go": 1}, 0.0, {}, frozenset(prints)) for prints in ([b"1", b"2"], [b"2"], [b"3"]))
    found = overlaps({"train": a, "dev": b, "test": c})
    assert found == {("train", "dev"): 1, ("train", "test"): 0, ("dev", "test"): 0}


@pytest.mark.parametrize("world", GENERATED)
def test_generated_splits_share_no_episode(world: str) -> None:
    made = world_of(DataConfig(world=world))
    found = {split: audit(made, 0, split) for split in ("train", "dev", "test")}
    assert set(overlaps(found).values()) == {0}


def test_every_world_has_both_sizes() -> None:
    assert all(set(sizes) == {"small", "large"} for sizes in SHAPES.values())


def test_the_command_prints_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["slowfast_vgen.data", "+experiment=rooms", f"loop.root={tmp_path / 'runs'}"])
    data.main()
    out = capsys.readouterr().out
    assert "rooms: chunks of 2 frames of 8 by 16 pixels" in out and "in window: out_and_back" in out
    assert "Episodes in both train and test: 0 of 32 and 32" in out
    sheets = [Path(line.removeprefix("Sheet: ")) for line in out.splitlines() if line.startswith("Sheet: ")]
    assert [path.name for path in sheets] == [
        f"rooms_small_0_{name}.png" for name in ("clips", "out_and_back", "turn", "new")
    ]
    for path in sheets:
        with Image.open(path) as image:
            assert image.width > 200


def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["+experiment=folder", f"data.folder.path={tmp_path}/none", f"loop.root={tmp_path / 'runs'}"]
    monkeypatch.setattr("sys.argv", ["slowfast_vgen.data", *words])
    with pytest.raises(SystemExit, match="2"):
        data.main()
    assert "check data.folder.path" in capsys.readouterr().err
