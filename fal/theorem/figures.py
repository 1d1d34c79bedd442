"""Figures of the bench, each of the cells of one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fal.adversary.balls import Cap
from fal.theorem.cells import Cell, bounds
from fal.theorem.network import Loss, Network
from fal.theorem.points import Points, on_circle
from fal.theory_config import TheoryConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ANGLES = 360
ACROSS = 3
"""Panels of a row, of a table with many cells."""
POINTS = 40
"""Of a curve, at the most."""
LEAST = 1e-6
"""Distances below it are drawn there."""
RADII = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
BOUNDS = {"interval": "intervals", "crown": "CROWN", "exact": "exact", "pgd20": "PGD-20"}
LABEL = {1: "tab:red", -1: "tab:blue"}


def _figure(width: float, height: float, across: int, panels: int | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` panels (as many as `across` where not said) in rows of `across`."""
    from matplotlib.figure import Figure

    panels = panels or across
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(math.ceil(panels / across), across, at + 1) for at in range(panels)]


def _curve(cell: Cell, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rounds [records], and a coordinate of every run [records, runs], of records even on a logarithmic axis."""
    every = [record for record in cell.records if name in record]
    there = [every[place] for place in np.unique(np.geomspace(1, len(every), POINTS).astype(int)) - 1]
    rounds = np.array([float(record["round"][0]) for record in there])
    return rounds, np.array([record[name].tolist() for record in there])


def regret(cells: Sequence[Cell], config: TheoryConfig) -> Figure:
    """Average regret against the best fixed U*, and what bounds it."""
    across = min(len(cells), ACROSS)
    figure, panels = _figure(5.2 * across, 4.2 * math.ceil(len(cells) / across), across, len(cells))
    lines = {
        "regret": ("regret of g against U*", "tab:blue", "-"),
        "regret_bound_coupled": ("$R^2/2et + (e/2)G^2$ + coupling, measured", "tab:green", "--"),
        "regret_bound": ("$R^2/2et + e/2$", "black", "--"),
    }
    for axes, cell in zip(panels, cells, strict=True):
        for name, (label, colour, style) in lines.items():
            rounds, values = _curve(cell, name)
            axes.plot(rounds, values.mean(1), style, color=colour, label=label)
            if values.shape[1] > 1:
                axes.fill_between(rounds, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
        rounds, values = _curve(cell, "robust")
        axes.plot(rounds[1:], values[1:].mean(1), ":", color="tab:blue", label="robust loss after round t")
        distance, left = (np.mean(cell.values[name]) for name in ("fixed_distance", "fixed_robust"))  # type: ignore[arg-type]
        step, pseudo = (
            cell.change.get(key, usual)
            for key, usual in (("federated.step", config.federated.step), ("network.pseudo", config.network.pseudo))
        )
        width, count = (int(cell.values[name][0] or 0) for name in ("width", "n"))
        trained = "pseudo-network" if pseudo else "network"
        axes.set(
            title=f"{trained}, n = {count}, m = {width}, e = {step:g}\n"
            f"R = {distance:.1f}, robust loss of $g_{{U^*}}$ {left:.3f}",
            xlabel="round t",
            ylabel="mean over rounds 1 .. t",
            xscale="log",
            yscale="log",
        )
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    return figure


def phase_map(cells: Sequence[Cell], config: TheoryConfig) -> Figure:
    """Local drift over eta_local K m^(1/3) and heterogeneity, and where the clients' kinds part in loss."""
    from matplotlib.colors import LogNorm

    steps = sorted({float(cell.change["federated.width_factor"]) for cell in cells})
    shares = sorted({float(cell.change["problem.one_label"]) for cell in cells})
    found = {(c.change["federated.width_factor"], c.change["problem.one_label"]): c.values for c in cells}
    drift = np.array([[np.mean(found[step, share]["drift"]) for step in steps] for share in shares])  # type: ignore[arg-type]
    figure, (left, right) = _figure(12, 4.2, 2)
    image = left.imshow(drift, aspect="auto", origin="lower", cmap="viridis", norm=LogNorm())
    left.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
    left.set_yticks(range(len(shares)), [f"{100 * share:.0f} %" for share in shares])
    middle = math.sqrt(drift.min() * drift.max())
    for row, column in np.ndindex(drift.shape):
        colour = "white" if drift[row, column] < middle else "black"
        left.text(column, row, f"{drift[row, column]:.2g}", ha="center", va="center", color=colour, fontsize="small")
    left.set(xlabel=r"$\eta_{local}\, K\, m^{1/3}$", ylabel="clients with one label", title="largest local drift")
    figure.colorbar(image, ax=left)
    for share in shares:
        best = np.array([found[step, share]["best"] for step in steps], dtype=float)
        label = f"{100 * share:.0f} % of clients with one label"
        right.errorbar(steps, best.mean(1), yerr=best.std(1), marker="o", capsize=3, label=label)
    rounds, local = config.federated.rounds, config.federated.local_steps
    right.set(
        xscale="log",
        xlabel=r"$\eta_{local}\, K\, m^{1/3}$",
        ylabel=f"best robust loss in {rounds} rounds",
        title=f"K = {local}, m = {config.network.width}, e = {config.federated.step:g}",
    )
    right.grid(alpha=0.3)
    right.legend()
    return figure


def flips(cells: Sequence[Cell], config: TheoryConfig) -> Figure:
    """On the circle: the decision over rounds with the arcs that it must hold on, and which neurons have flipped."""
    cell = cells[0]
    network, points = _first_of(cell)
    angle = torch.linspace(-math.pi, math.pi, ANGLES, dtype=torch.float64)
    x = on_circle(angle)[None, None]
    figure, (left, right) = _figure(13, 5.2, 2)
    every = max(1, len(cell.trail) // POINTS)
    rounds = [float(record["round"][0]) for record in cell.records][::every]
    said = np.stack([network.predict(w.double()[None, None], x)[0, 0].numpy() for w in cell.trail[::every]])
    degrees = np.degrees(angle.numpy())
    around: dict[str, Any] = {"aspect": "auto", "vmin": -1, "vmax": 1, "interpolation": "none"}
    image = left.imshow(said, cmap="RdBu_r", origin="lower", extent=(-180, 180, rounds[0], rounds[-1]), **around)
    left.contour(degrees, rounds, said, levels=[0.0], colors="black", linewidths=0.8)
    figure.colorbar(image, ax=left, label="f (black: 0)")
    left.set(xlabel="angle, degrees", ylabel="round", title="decision on the circle; bars: arcs and their labels")
    before = network.active(network.start, x)[0, 0].double()
    after = network.active(cell.trail[-1].double()[None, None], x)[0, 0].double()
    middle = torch.atan2(network.start[0, 0, :, 1], network.start[0, 0, :, 0])
    changed = (after - before).T[middle.argsort()].numpy()
    right.imshow(changed, cmap="PuOr", extent=(-180, 180, len(changed), 0), **around)
    share, last = float((changed != 0).mean()), float(cell.records[-1]["round"][0])
    right.set(
        xlabel="angle, degrees",
        ylabel="neuron, sorted by direction",
        title=f"flipped after {last:.0f} rounds: {100 * share:.1f} %, on (violet) or off (orange)",
    )
    half = math.degrees(Cap(config.problem.rho).widest)
    for axes in (left, right):
        for at, label in zip(_angles(points), points.y[0].tolist(), strict=True):
            axes.axvspan(at - half, at + half, ymin=0.97, color=LABEL[int(label)])
        axes.set_xticks(range(-180, 181, 60))
        axes.set_xlim(-180, 180)
    return figure


def certified(cells: Sequence[Cell], config: TheoryConfig) -> Figure:
    """PGD <= exact <= CROWN, intervals: over rounds at the radius of the training, and over radii at the end."""
    cell = cells[0]
    network, points = _first_of(cell)
    loss = Loss(config.network.bend)

    def losses(weights: Tensor, rho: float) -> dict[str, Any]:
        return bounds(network, points, loss, weights.double()[None], replace(config.problem, rho=rho))

    rounds = [float(record["round"][0]) for record in cell.records]
    every = max(1, len(rounds) // 20)
    over_rounds = [losses(w, config.problem.rho) for w in cell.trail[::every]]
    figure, (left, right) = _figure(12, 4.4, 2)
    for name, style in {"interval": "-.", "crown": "s", "exact": "-", "pgd20": "x"}.items():
        values = [found[name][0] for found in over_rounds]
        left.plot(rounds[::every], values, style, fillstyle="none", label=BOUNDS[name])
    left.set(xlabel="round", ylabel="robust loss", title=f"rho = {config.problem.rho:g}")
    for weights, when, style in ((cell.trail[0], "start", "--"), (cell.trail[-1], "end", "-")):
        found = [losses(weights, rho) for rho in RADII]
        exact = np.array([each["exact"][0] for each in found])
        for name, colour in (("interval", "tab:blue"), ("crown", "tab:orange"), ("pgd20", "tab:red")):
            apart = np.abs(np.array([each[name][0] for each in found]) - exact).clip(min=LEAST)
            right.plot(RADII, apart, style, marker=".", color=colour, label=f"{BOUNDS[name]}, {when}")
    right.set(
        xlabel="rho",
        ylabel=f"distance to the exact robust loss (at least {LEAST:g})",
        yscale="log",
        title=f"before training and after {rounds[-1]:.0f} rounds at rho = {config.problem.rho:g}",
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    right.legend(loc=(0.42, 0.12), ncols=2, fontsize="small")
    return figure


def law(cells: Sequence[Cell], config: TheoryConfig) -> Figure:
    """Rounds to each target against gamma, delta and rho."""
    from matplotlib.ticker import LogLocator

    figure, panels = _figure(14, 4.4, 3)
    for axes, name in zip(panels, ("gamma", "delta", "rho"), strict=True):
        for target, colour in zip(config.targets, ("tab:green", "tab:blue", "tab:red"), strict=False):
            there = [c.values for c in cells if None not in c.values[f"rounds_to_{target:g}"]]
            x = [float(values[name][0] or 0) for values in there]
            y = np.array([values[f"rounds_to_{target:g}"] for values in there], dtype=float)
            axes.errorbar(x, y.mean(1), yerr=y.std(1), fmt="o", capsize=3, color=colour, label=f"to {target:g}")
        axes.set(xlabel=name, ylabel="rounds", yscale="log", xscale="linear" if name == "rho" else "log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:.3g}")
            if axis.get_scale() == "log":
                axis.set_minor_locator(LogLocator(subs=range(2, 8)))  # 0.09 would lie on 0.1
                axis.set_minor_formatter("{x:.3g}")
        axes.grid(alpha=0.3, which="both")
    panels[0].legend()
    return figure


def _first_of(cell: Cell) -> tuple[Network, Points]:
    """The network of the first run, in float64, and the points."""
    assert cell.network is not None and cell.points is not None
    first = [each[:1].double() for each in (cell.network.outer, cell.network.bias, cell.network.start)]
    return Network(*first), cell.points


def _angles(points: Points) -> list[float]:
    """In degrees, from -180 to 180."""
    found: list[float] = torch.rad2deg(torch.atan2(points.x[0, :, 1], points.x[0, :, 0])).tolist()
    return found


FIGURES: dict[str, Callable[[Sequence[Cell], TheoryConfig], Figure]] = {
    "regret": regret,
    "phase_map": phase_map,
    "flips": flips,
    "certified": certified,
    "law": law,
}
