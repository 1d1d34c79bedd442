"""Long videos, plans and chunks through frozen networks: what a run writes of them, and what it says of the truth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.run.items import read_of_all
from slowfast_vgen import evaluate, long, train
from slowfast_vgen.build import Parts
from slowfast_vgen.close import Close
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.episodes import stacks
from slowfast_vgen.evaluate import measure
from slowfast_vgen.long import planned, walked
from slowfast_vgen.metrics.features import Encoders
from slowfast_vgen.metrics.lens import Lens
from slowfast_vgen.scoring import interval_of_all, summarise
from tests.runs import only_run, run_here
from tests.slowfast_vgen.small import SMALL, parts

WORDS = ("evaluation.videos=4", "evaluation.test=12", "fast.steps=1", "fast.draws=1")
FEATURES = ("features.steps=5", "features.batch=8")


def knowing(monkeypatch: pytest.MonkeyPatch, found: Parts) -> None:
    """From here on what is generated is the truth."""

    def told(_: Parts, __: TrainConfig, episodes: long.Episodes, **___: object) -> long.Frames:
        return episodes.frames

    monkeypatch.setattr(long, "_generated", told)


def test_true_videos_revisit_themselves_perfectly_and_do_what_was_asked(
    trained: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, config = parts(*WORDS)
    knowing(monkeypatch, found)
    monkeypatch.setattr(long, "_cost", lambda *_: {})
    items = [*walked(found, config, Lens(trained)).items, *planned(found, config, Lens(trained)).items]
    value = {name: each.value for name, each in summarise(items, 0.95).items()}
    assert value["src_world@long_walk"] == value["src_world_ceiling@long_walk"] == pytest.approx(100)
    assert value["src_world_rescaled@long_walk"] == pytest.approx(100)
    assert max(value["src_world_floor@long_walk"], value["src_world_apart@long_walk"]) < 95
    assert value["scuts@long_walk"] == value["scuts_truth@long_walk"]
    for kind in ("walk", "plan"):
        assert value[f"agreement@long_{kind}"] > 0.6
    assert value["dist@long_plan"] == value["dist_truth@long_plan"]
    assert all("@long_" in name for name in value)


def test_a_video_that_stands_still_has_no_cut_and_does_not_do_what_was_asked(trained: Encoders) -> None:
    found, config = parts(*WORDS, "method=copy")
    value = {name: each.value for name, each in summarise(walked(found, config, Lens(trained)).items, 0.95).items()}
    assert value["scuts@long_walk"] == 0 and value["agreement@long_walk"] < value["agreement_truth@long_walk"]
    assert value["src_world@long_walk"] == value["src_world_apart@long_walk"] == pytest.approx(100)


def test_chunks_are_the_farther_from_the_truth_the_more_they_are_spoilt(trained: Encoders) -> None:
    found, config = parts("evaluation.test=40", "evaluation.batch=20")
    apart: dict[str, list[float]] = {"lpips_world": [], "fvd_world": []}
    for share in (0.0, 0.3):
        close = Close(found, config, Lens(trained))
        for first, size in stacks(40, 20):
            episodes = found.world.episodes(0, "test", "out_and_back", 2, first, size)
            for chunk in (3, 4):
                true = episodes.frames[:, chunk] / 255
                made = (1 - share) * true + share * np.random.default_rng(0).random(true.shape)
                scores = close.scores(episodes, chunk, made)
        sets = close.sets()
        assert len(close.groups) == 40 and sets["fvd_world"].without.keys() == set(close.groups)
        apart["lpips_world"].append(float(scores["lpips_world"].mean()))
        apart["fvd_world"].append(sets["fvd_world"].value)
    assert apart["lpips_world"][0] == 0 and apart["fvd_world"][0] == pytest.approx(0, abs=1e-6)
    assert apart["lpips_world"][1] > 1 and apart["fvd_world"][1] > sets["fvd_world_real"].value > 0
    within = interval_of_all("fvd", sets["fvd_world_real"], 0.95)
    assert within.low < within.value < within.high and within.count == 40


def test_every_generated_chunk_is_timed_and_a_memory_has_its_bytes(trained: Encoders) -> None:
    found, config = parts(*WORDS)
    without = walked(found, config, Lens(trained)).metrics
    assert set(without) == {"seconds", "memory_mb"}
    found.lora.attach()
    having = walked(found, config, Lens(trained)).metrics
    assert having["fast_share"].low < having["fast_share"].value and having["seconds"].value > 0
    fast = sum(weight.numel() for weight in found.lora.start(("one",)).weights.values())
    extra = having["memory_mb"].value - without["memory_mb"].value
    assert extra == pytest.approx(3 * 4 * fast / 1e6)  # weights and Adam's two moments


def test_a_run_asked_for_videos_writes_sets_and_items_and_others_nothing(tmp_path: Path) -> None:
    assert run_here(train.main, *SMALL, *WORDS, *FEATURES, "method=temp_lora", f"loop.root={tmp_path}") == 0
    folder = only_run(tmp_path)
    test = json.loads((folder / "results.json").read_text())["test"]
    asked = {"lpips_world@phase_replay", "scuts@long_walk", "dist@long_plan", "agreement@long_walk", "fast_share"}
    sets = {"fvd_world", "fvd_world_real", "fvd_world_plan"}
    assert asked | sets <= set(test) and set(read_of_all(folder)) == sets
    assert "lpips_world_swapped" not in test and test["fvd_world"]["low"] < test["fvd_world"]["value"]
    assert "place@phase_return" in test and test["place"]["count"] == 24
    assert run_here(evaluate.main, f"run={folder}", "videos=3", *FEATURES) == 0
    again = json.loads((folder / "evaluation-test+videos-3.json").read_text())
    assert again["scuts@long_walk"]["count"] == 3 and again["fvd_world"] == test["fvd_world"]


def test_dev_is_tested_as_ever() -> None:
    found, config = parts(*WORDS, *FEATURES)
    assert measure(found, config, "dev").sets == {}
    asked = replace(config, evaluation=replace(config.evaluation, videos=0))
    assert not [name for name in measure(found, asked).metrics if "world" in name or "long" in name]


def test_a_long_video_of_a_baseline_is_given_what_its_window_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from slowfast_vgen import imagine
    from slowfast_vgen.episodes import seen

    found, config = parts("method=anchor")
    there = seen(found.world.clips(0, "test", 0, 3, 4), found.latents, config.method, found.device)
    given = []

    def next_chunk(_: Parts, __: TrainConfig, past: Tensor, action: Tensor, noise: Tensor, ___: object) -> Tensor:
        given.append(past)
        return torch.full_like(noise, len(given))

    monkeypatch.setattr(imagine, "next_chunk", next_chunk)
    imagine.imagined(found, config, there)
    assert [past.shape[1] for past in given] == [4, 4, 4] and given[0][:, :2].equal(given[0][:, 2:])
    assert given[2][:, :2].equal(there.z[:, 0]) and (given[2][:, 2:] == 2).all()
