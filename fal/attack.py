"""The inner maximisation: the only loop over attack steps.

    worst = attack(gain, x, ball_of(config), config, draws)

Gradients are taken by the points alone, never by a weight. A stack of clients is folded into items by the caller.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.engine.derivatives import gradient
from common.engine.weights import Weights
from fal.adversary.apgd import best_of
from fal.adversary.ascent import ASCENTS
from fal.adversary.balls import Ball, ball_of
from fal.adversary.config import AttackConfig, Kind, Start
from fal.adversary.gains import Classifier, Differentiated, Gain
from fal.adversary.path import Path, choose
from fal.adversary.starts import STARTS

__all__ = ["AttackConfig", "Ball", "Classifier", "Draws", "Gain", "attack", "ball_of"]

Draws = Callable[[int], Tensor]
"""Restart -> numbers from [0, 1) of the shape of x, the same at every call."""


@torch.no_grad()
def attack(
    gain: Gain, x: Tensor, ball: Ball, config: AttackConfig, draws: Draws, *, early_exit: bool = False
) -> Tensor:
    """Points of the ball around x, [items, ...], with a large gain; without graph.

    PGD and its kin give the last point of their path, APGD the best. Of several restarts the point with the largest
    gain counts, item by item.

    Args:
        gain: what is maximised. Its weights should be detached, or their graph is built and thrown away.
        x: clean points, inside the ball's box.
        ball: where the points may go. Its radius counts; `config.eps` only sets the length of a step.
        config: kind, number and length of steps, restarts, start. `config.loss` is for whoever makes the gain.
        draws: random numbers of the starts; not asked with `start=none`.
        early_exit: an item leaves as soon as it is misclassified, at x, at the start or on its way, with that point;
            the gain must be a `Classifier`.

    Raises:
        ValueError: `early_exit` with a gain that does not know whom it has fooled.
    """
    if early_exit and not isinstance(gain, Classifier):
        raise ValueError(f"early_exit with a gain that is a {type(gain).__name__}: it takes a Classifier")
    x = x.detach()
    found, highest = x.clone(), x.new_full(x.shape[:1], -torch.inf)
    rows = torch.arange(len(x), device=x.device)
    if early_exit:
        rows = rows[~_look(gain, {"at": x}, climbs=False)]
    compares = config.kind is Kind.apgd or config.restarts > 1  # and so looks at the last point, too
    for restart in range(config.restarts):
        here, path = _of(gain, rows), {"rows": rows, "x": _rows(x, rows)}
        path["at"] = _start(path, ball, config.start, draws, restart)
        project = ball.around(path["x"])
        for step in range(config.steps + compares):
            if not len(path["rows"]):
                return found
            fooled = _look(here, path, climbs=step < config.steps)
            if early_exit and fooled.any():
                found[path["rows"][fooled]] = path["at"][fooled]
                here, path = _of(here, ~fooled), {name: kept[~fooled] for name, kept in path.items()}
                project = ball.around(path["x"])
            if step < config.steps:
                ASCENTS[config.kind](path, step, ball, project, config)
        rows, points = path["rows"], path["at"]
        if compares:
            points, value = best_of(path) if config.kind is Kind.apgd else (points, path["gain"])
            better = value > highest[rows]
            points, highest[rows] = choose(better, points, found[rows]), torch.where(better, value, highest[rows])
        if len(rows) < len(x):
            found[rows] = points
        else:
            found = points
    return found


def _look(gain: Gain, path: Path, *, climbs: bool) -> Tensor:
    """Write `gain` at the points and, if the path climbs, `gradient`; returns whom a classifier's gain has fooled."""
    fooled = torch.zeros(len(path["at"]), dtype=torch.bool, device=path["at"].device)

    def loss(weights: Weights, _: None) -> Tensor:
        nonlocal fooled
        if not isinstance(gain, Classifier):
            return gain(weights["x"])
        value, fooled = gain.judged(weights["x"])
        return value

    if climbs and isinstance(gain, Differentiated):
        path["gradient"], path["gain"] = gain.gradient(path["at"])
        return fooled
    if climbs:
        (path["gradient"],), path["gain"] = gradient(loss, {"x": path["at"]}, (None,))
    else:
        path["gain"] = loss({"x": path["at"]}, None)
    return fooled


def _of(gain: Gain, rows: Tensor) -> Gain:
    """The gain of some items; one that knows no items keeps all of them."""
    return gain.of(rows) if isinstance(gain, Classifier) else gain


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Those rows, which are in order, of values; no copy where they are all."""
    return values if len(rows) == len(values) else values[rows]


def _start(path: Path, ball: Ball, start: Start, draws: Draws, restart: int) -> Tensor:
    x = path["x"]
    if start is Start.none:
        return x
    draw = _rows(draws(restart).to(x), path["rows"])
    return STARTS[start](x, draw, ball)
