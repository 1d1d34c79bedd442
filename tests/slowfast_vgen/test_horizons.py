"""Next chunks foreseen frame by frame: what is compared with what, and where it is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slowfast_vgen import horizons, train
from slowfast_vgen.horizons import foreseen, told
from slowfast_vgen.metrics.pixels import psnr
from slowfast_vgen.scoring import summarise
from tests.runs import only_run, run_here
from tests.slowfast_vgen.small import SMALL, parts

WORDS = ("evaluation.ahead=5", "evaluation.batch=4")


def test_every_frame_and_the_whole_chunk_stand_beside_a_copy_of_the_last_given_frame() -> None:
    found, config = parts(*WORDS)
    items = foreseen(found, config)
    assert len(items) == 3 * 5 * (2 + 1) and len({item.id for item in items}) == len(items)
    clips = found.world.clips(0, "dev", 0, 5)
    last = clips.frames[:, 0, -1:]
    summary = summarise(items, 0.95)
    for frame in (1, 2):
        copied = psnr(last, clips.frames[:, 1, frame - 1 : frame]).mean()
        assert summary[f"copied@dev_{frame}"].value == pytest.approx(copied)
    whole = psnr(np.repeat(last, 2, 1), clips.frames[:, 1]).mean()
    assert summary["copied@dev_all"].value == pytest.approx(whole)
    for name in ("expected", "sampled"):
        gain = summary[f"{name}@test_all"].value - summary["copied@test_all"].value
        assert summary[f"{name}_gain@test_all"].value == pytest.approx(gain)
    assert summary["expected@test_all"].value != summary["sampled@test_all"].value
    assert not {"expected", "place", "psnr"} & set(summary)  # they count in their slices alone


def test_a_model_that_knows_the_future_gains_all_that_copying_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    found, config = parts(*WORDS, "latents.values=15", "diffusion.steps=3")
    steps = []

    def knows(*args: object, **given: int) -> torch.Tensor:
        steps.append(given["steps"])
        split = ("train", "dev", "test")[(len(steps) - 1) // 4]
        clips = found.world.clips(0, split, 0, 5).at(range(4) if (len(steps) - 1) // 2 % 2 == 0 else range(4, 5))
        return found.latents.encode(torch.from_numpy(clips.frames[:, 1]))

    monkeypatch.setattr(horizons, "sample", knows)
    summary = summarise(foreseen(found, config), 0.95)
    assert steps == [1, 3] * 6  # the mean takes one pass, a sample those of the sampler
    assert summary["expected@dev_all"].value > 50 and summary["sampled_gain@test_2"].low > 20


def test_a_run_says_it_by_split_and_frame(tmp_path: Path) -> None:
    words = ("method=slow", "evaluation.ahead=3", f"loop.root={tmp_path}")
    assert run_here(train.main, *SMALL, *words) == 0
    test = json.loads((only_run(tmp_path) / "results.json").read_text())["test"]
    assert {f"expected_gain@{split}_{frame}" for split in ("train", "dev", "test") for frame in (1, 2, "all")} <= set(
        test
    )


def test_lines_say_split_frame_and_what_is_gained() -> None:
    found, config = parts(*WORDS)
    lines = list(told(summarise(foreseen(found, config), 0.95), found.world))
    assert [line.split(":")[0] for line in lines[:3]] == ["train, frame 1", "train, frame 2", "train, all frames"]
    assert len(lines) == 9 and all("copy" in line and "expected" in line and "sampled" in line for line in lines)
