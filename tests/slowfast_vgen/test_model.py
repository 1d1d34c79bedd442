"""What `python -m slowfast_vgen.model` prints, and what it is counted from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from common.engine.settings import Unroll
from common.errors import UserError
from common.run.schema import to_typed
from slowfast_vgen import counting, model
from slowfast_vgen.actions import Actions
from slowfast_vgen.config import TrainConfig
from slowfast_vgen.counting import Work, counted, hollow
from slowfast_vgen.latents.grid import Grid, grid_of
from slowfast_vgen.networks.config import Kind, ModelConfig
from slowfast_vgen.sizes import AT_WEIGHTS, too_slow

TINY = ModelConfig(Kind.factored, 4, widths=[16], depth=1, head=8, attended=[])
GRID, TURNS = Grid(3, 1, 2), Actions(("turn left", "turn right"))
UNROLLS = (Unroll.stored, Unroll.recompute, Unroll.first_order)
WORK = Work(chunk=2, clips=4, draws=1, steps=1, episodes=2, length=2, unroll=Unroll.stored)


def composed(*words: str) -> TrainConfig:
    with initialize_config_module("conf.slowfast_vgen", version_base="1.3"):
        return to_typed(compose("config", overrides=list(words)), TrainConfig)


def test_the_start_is_a_function_of_the_seed_and_draws_nothing_else() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = model.build(TINY, GRID, TURNS, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = (model.build(TINY, GRID, TURNS, seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("factored_tiny", 0.15e6, 0.3e6), ("unet3d_tiny", 0.1e6, 0.5e6), ("unet3d_small", 1.3e6, 1.9e6)],
)
def test_every_file_is_a_network_of_the_size_that_it_says(name: str, least: float, most: float) -> None:
    config = composed(f"model={name}", "scale=paper", "data.chunk=2").model
    with torch.device("meta"):
        network = model.build(config, Grid(10, 1, 2), TURNS, 0)
    assert least < sum(weight.numel() for weight in network.parameters()) < most


def test_sizes_are_those_of_a_network_with_data() -> None:
    shape = hollow(model.skeleton(TINY, GRID), TINY.kind, GRID, 3)
    network = model.build(TINY, GRID, TURNS, 0)
    assert shape.weights == sum(weight.numel() for weight in network.parameters())
    per_layer = sum(3 * (a + b) for a, b in ((16, 48), (16, 16), (16, 32), (32, 16)))
    assert counted(shape.fast) == TINY.depth * per_layer
    only_b = hollow(model.skeleton(TINY, GRID), TINY.kind, GRID, 3, both=False)
    assert counted(only_b.fast) == TINY.depth * 3 * (48 + 16 + 32 + 16)
    with pytest.raises(UserError, match=r"fast\.layers: the pattern 'nothing' matches no linear"):
        hollow(model.skeleton(TINY, GRID), TINY.kind, GRID, 3, ["nothing"])


def test_memory_grows_as_the_work_does() -> None:
    shape = hollow(model.skeleton(TINY, GRID), TINY.kind, GRID, 3)
    weights, own = 4 * shape.weights, 4 * counted(shape.fast)

    def changed(**words: Any) -> Work:
        return Work(**(vars(WORK) | words))

    slow = [counting.slow(shape, changed(clips=clips)) for clips in (4, 8, 12)]
    assert slow[0] > 4 * weights, "weights, gradients and two moments"
    assert slow[2] - slow[1] == slow[1] - slow[0] > 0, "a clip more is the same each time"
    assert counting.loop(shape, WORK) >= slow[0] + 4 * own
    fast = [counting.fast(shape, changed(draws=draws)) for draws in (1, 4)]
    assert weights + 4 * own < fast[0] < fast[1] and fast[0] < slow[0]
    by_unroll = {unroll: counting.meta(shape, changed(length=6, unroll=unroll)) for unroll in UNROLLS}
    assert 3 * weights < by_unroll[Unroll.first_order] < by_unroll[Unroll.stored] > by_unroll[Unroll.recompute]
    assert not any(weight.requires_grad for weight in shape.network.parameters()), "counting leaves nothing that learns"


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()  # folders that are empty go, up to the first that is not
    monkeypatch.setattr("sys.argv", ["slowfast_vgen.model", *words, f"loop.root={tmp_path / 'runs'}"])
    model.main()


def test_the_command_prints_sizes_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["+experiment=rooms", "scale=cpu", "model.depth=1", "latents.values=10"], monkeypatch, tmp_path)
    shown = capsys.readouterr().out
    for text in ("model.kind=factored", "10 values at 1x2", "rank 8", "352.00 MB", "shift", "1, by 20 latent values"):
        assert text in shown, shown
    assert all(f"\n  {kind}" in shown for kind in ("slow", "fast", "loop", "meta")) and "warning" not in shown
    assert not (tmp_path / "runs").exists()


def test_pixels_through_a_unet_are_warned_of_on_a_cpu() -> None:
    words = ["model=unet3d_tiny", "latents=pixels", "runtime=cpu", "data.height=32", "data.width=32"]
    config = composed(*words, "data.chunk=2", "slow.batch=4")
    grid = grid_of(config.latents, 32, 32)
    told = too_slow(config, grid, int(AT_WEIGHTS))
    assert told is not None and "about 3.5 s a step" in told and "use latents=patches" in told, "a quarter of 14 s"
    for other in ("latents=patches", "model=factored_tiny"):
        assert too_slow(composed(*words, other), grid, 10**6) is None


@pytest.mark.parametrize(
    ("words", "grid"),
    [
        (["latents=pixels"], (3, 8, 16)),
        (["latents=patches"], (10, 1, 2)),
        (["latents=patches", "latents.patch=4", "latents.values=12"], (12, 2, 4)),
        (["latents=vae"], (4, 1, 2)),
        (["latents=taef2"], (32, 1, 2)),
    ],
)
def test_latents_have_sizes_before_there_are_weights(words: list[str], grid: tuple[int, ...]) -> None:
    config = composed(*words)
    assert grid_of(config.latents, config.data.shape.height, config.data.shape.width) == grid
