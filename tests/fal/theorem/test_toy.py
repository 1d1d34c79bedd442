"""The toy experiment against plain loops, its search for the largest stable rate, and its command."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from fal.images.config import ClustersConfig
from fal.theorem import toy
from fal.toy import study
from fal.toy_config import StableConfig, ToyConfig

SMALL = ToyConfig(
    scales=[2.5, 0.85], rates=[0.05], train=80, test=40, hidden=8, batch=10, local_steps=3, rounds=4, moments=[1, 4],
    seeds=2, stable=StableConfig(halvings=2),
)  # fmt: skip


def test_sets_share_their_draws_over_levels() -> None:
    sets = toy.sets_of(SMALL)
    assert sets.x.shape == (4, 80, 2) and sets.y_test.shape == (4, 40)
    assert torch.allclose(sets.x[0] / 2.5, sets.x[2] / 0.85, atol=1e-5) and torch.equal(sets.y[1], sets.y[3])
    assert not torch.equal(sets.y[0], sets.y[1])


@pytest.mark.parametrize("summed", [False, True])
def test_stacked_clients_equal_one_after_the_other(summed: bool) -> None:
    """Without an attack that draws: one epoch of full batches, each client by autograd, then the mean."""
    config = replace(SMALL, eps=1e-9, step_size=1e-9, batch=20, local_steps=1, rounds=2, moments=[1, 2], summed=summed)
    sets = toy.sets_of(config)
    found = toy.train(config, sets, torch.full((4,), 0.05)).weights
    start = toy.start_of(config, 2, 2)
    for run in range(4):
        weights = {name: w[run] for name, w in start.items()}
        for _ in range(2):
            locals_ = []
            for client in range(4):
                own = {name: w.clone().requires_grad_() for name, w in weights.items()}
                rows = slice(20 * client, 20 * client + 20)
                said = torch.relu(sets.x[run, rows] @ own["w1"].T + own["b1"]) @ own["w2"].T + own["b2"]
                loss = F.cross_entropy(said, sets.y[run, rows], reduction="sum" if summed else "mean")
                gradients = torch.autograd.grad(loss, list(own.values()))
                locals_.append({n: w - 0.05 * g for (n, w), g in zip(own.items(), gradients, strict=True)})
            weights = {name: torch.stack([each[name] for each in locals_]).mean(0).detach() for name in weights}
        for name, w in weights.items():
            assert torch.allclose(found[name][run], w, atol=1e-5), name


def test_the_start_is_torchs_default() -> None:
    start = toy.start_of(replace(SMALL, hidden=512), 2, 2)
    assert float(start["w1"].abs().max()) <= 1 / math.sqrt(2) and float(start["w1"].std()) == pytest.approx(
        1 / math.sqrt(6), rel=0.05
    )
    assert torch.equal(start["w1"][0], start["w1"][2])  # levels share it, seeds do not
    assert not torch.equal(start["w1"][0], start["w1"][1])


def test_attacked_points_stay_in_the_box_and_cost_more() -> None:
    config = replace(SMALL, eps=0.5, step_size=0.2)
    sets, weights = toy.sets_of(config), toy.start_of(config, 2, 2)
    worst = toy.attacked(weights, sets.x, sets.y, config, "x")
    assert float((worst - sets.x).abs().max()) <= 0.5 + 1e-6

    def loss(x: torch.Tensor) -> float:
        return float(F.cross_entropy(toy.logits(weights, x).flatten(0, 1), sets.y.flatten()))

    assert loss(worst) > loss(sets.x)


def test_the_largest_stable_rate_lies_between_stable_and_diverging_ones() -> None:
    config = replace(SMALL, stable=StableConfig(low=1e-2, high=1e3, halvings=5))
    sets = toy.sets_of(config)
    largest = toy.largest_rates(config, sets)
    assert largest.isfinite().all() and (largest > 0).all()
    assert toy.stable(toy.train(config, sets, largest.float()), 2.0).all()
    step = (1e3 / 1e-2) ** (1 / 2**5)
    assert not toy.stable(toy.train(config, sets, (largest * step * 1.01).float()), 2.0).all()
    wide = replace(config, stable=StableConfig(low=1e-6, high=1e-5, halvings=1))
    assert toy.largest_rates(wide, sets).isinf().all()


def test_the_command_leaves_a_table_and_figures(tmp_path: Path) -> None:
    results = study(SMALL, tmp_path)
    assert results.test["test_4_scale_2.5_rate_0.05"].count == 2
    assert {path.stem for path in (tmp_path / "media").iterdir()} == {"data", "curves", "regions_rate_0.05"}
    assert "largest_stable" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch": 30}, "batch=30"),
        ({"clients": 3}, "clients=3"),
        ({"moments": [9]}, "moments"),
        ({"rates": []}, "rates"),
    ],
)
def test_impossible_settings(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(SMALL, **changes)


def test_clusters_are_those_of_the_data_room() -> None:
    assert ToyConfig().clusters == replace(ClustersConfig(), scale=ToyConfig().clusters.scale)
