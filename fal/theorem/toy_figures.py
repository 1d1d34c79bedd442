"""Figures of the toy experiment: data, decision regions with the tube of the attack, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from fal.theorem.toy import Curves, Sets, logits
from fal.toy_config import ToyConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:orange")
SIDE = 160


def scatter(config: ToyConfig, sets: Sets) -> Figure:
    """The training points of the first seed at every level, on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(config.scales), 4), layout="constrained")
    panels = figure.subplots(1, len(config.scales), squeeze=False, sharex=True, sharey=True)[0]
    for level, (axes, scale) in enumerate(zip(panels, config.scales, strict=True)):
        run = level * config.seeds
        for label in range(len(config.clusters.means)):
            x = sets.x[run][sets.y[run] == label]
            axes.scatter(x[:, 0], x[:, 1], s=5, color=COLOURS[label % len(COLOURS)], label=f"class {label}")
        axes.set(title=f"features times {scale:g}", aspect="equal")
    panels[0].legend(markerscale=2)
    return figure


def regions(config: ToyConfig, sets: Sets, curves: Curves, rate: float) -> Figure:
    """Where the model of the first seed says what, and the tube in which the attack could change that."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(config.scales), 4), layout="constrained")
    panels = figure.subplots(1, len(config.scales), squeeze=False)[0]
    for level, (axes, scale) in enumerate(zip(panels, config.scales, strict=True)):
        run = level * config.seeds
        x, y = sets.x_test[run], sets.y_test[run]
        low, high = x.amin(0) - 0.5, x.amax(0) + 0.5
        across, down = (torch.linspace(float(a), float(b), SIDE) for a, b in zip(low, high, strict=True))
        places = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)
        weights = {name: w[run] for name, w in curves.weights.items()}
        said = logits(weights, places.flatten(0, 1)).argmax(-1).view(SIDE, SIDE)
        levels = [label - 0.5 for label in range(len(config.clusters.means) + 1)]
        axes.contourf(across, down, said, levels=levels, colors=COLOURS[: len(levels) - 1], alpha=0.25)
        corners = torch.tensor([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)]) * config.eps
        around = logits(weights, (places[:, :, None] + corners).flatten(0, 2)).view(SIDE, SIDE, len(corners), -1)
        for label in range(len(config.clusters.means)):  # as far as the attack can make it this class
            own = around[..., label] - around.index_fill(-1, torch.tensor(label), -torch.inf).amax(-1)
            axes.contour(across, down, own.amax(-1), levels=[0.0], colors="black", linewidths=0.8)
        for label in range(len(config.clusters.means)):
            own = x[y == label]
            axes.scatter(own[:, 0], own[:, 1], s=6, color=COLOURS[label % len(COLOURS)])
        axes.set(title=f"times {scale:g}: test {100 * float(curves.test[-1, run]):.1f} %")
    figure.suptitle(
        f"rate {rate:g}, after {config.rounds} rounds; between the lines a box of {config.eps:.3g} reaches both classes"
    )
    return figure


def learning(config: ToyConfig, found: Mapping[float, Curves]) -> Figure:
    """Accuracies by round, a panel a rate, a colour a level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(found), 4), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    rounds = range(1, config.rounds + 1)
    for axes, (rate, curves) in zip(panels, found.items(), strict=True):
        for level, scale in enumerate(config.scales):
            own = slice(level * config.seeds, (level + 1) * config.seeds)
            colour = COLOURS[level % len(COLOURS)]
            axes.plot(rounds, curves.train[:, own].mean(1), color=colour, label=f"times {scale:g}, train")
            axes.plot(rounds, curves.test[:, own].mean(1), "--", color=colour, label=f"times {scale:g}, test")
        axes.set(title=f"rate {rate:g}", xlabel="round", ylabel="accuracy")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    return figure
