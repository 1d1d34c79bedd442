"""One cell of a table: a problem, a network a seed, the algorithm, and every number that is read off the runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fal import certify
from fal.adversary.balls import Cap
from fal.theorem.adversary import Adversary, adversary_of
from fal.theorem.config import AdversaryConfig, AdversaryName, ProblemConfig
from fal.theorem.coordinates import Recorder
from fal.theorem.federated import Round, federated
from fal.theorem.network import Loss, Network, Pseudo
from fal.theorem.points import Points, circle, partition, separation, spread
from fal.theorem.regret import Regret, best_fixed
from fal.theorem.static import PREDICTED, random_points, static_lemmas
from fal.theory_config import TheoryConfig

Values = dict[str, list[float | None]]
"""Metric -> its value of every seed; None where it has none (a target that was not reached)."""
WITHIN = 1e-3
"""How near PGD comes to the exact worst case to count as there."""
STARTS = 10
"""Of PGD-20 where it is held against the exact worst case. An arc has a maximum at either end, and a start climbs to
the better one about every second time, whatever its steps: three starts miss one point in eight, ten hardly any.
"""
PRECISE = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Cell:
    """What was found."""

    change: dict[str, Any]
    """Keys that make it another cell than the others."""
    values: Values
    records: list[dict[str, Tensor]] = field(default_factory=list)
    """Every few rounds, section 2.1's coordinates of every run [runs]."""
    network: Network | None = None
    points: Points | None = None
    """Of all clients, as one client's, in float64."""
    trail: list[Tensor] = field(default_factory=list)
    """Weights of the first run at every record [m, d], where they were asked for."""

    def row(self) -> list[tuple[int, dict[str, Any]]]:
        """The records as JSON holds them, by run."""
        runs = len(next(iter(self.values.values())))
        return [(run, {k: float(v[run]) for k, v in one.items()}) for one in self.records for run in range(runs)]


def points_of(problem: ProblemConfig, seed: int = 0) -> Points:
    """The points, dealt to the clients.

    Raises:
        UserError: there is no room for them, they cannot be dealt evenly, or balls around two of them meet; the
            message names the two and their clients.
    """
    flat = problem.dim == 3
    x, y = circle(problem.points, problem.turn) if flat else spread(problem.points, problem.dim, problem.delta, seed)
    dealt = partition(x, y, problem.clients, problem.one_label)
    owners = [client for client in range(problem.clients) for _ in range(dealt.y.shape[1])]
    every = dealt.all()
    separation(every.x[0], every.y[0]).check(problem.rho, owners)
    return dealt


def judge_of(network: Network, problem: ProblemConfig) -> Adversary:
    """The exact adversary, on a circle; else PGD-20 with three starts."""
    pgd = AdversaryConfig(name=AdversaryName.pgd, steps=20, restarts=3)
    return adversary_of(network, problem.rho, AdversaryConfig() if problem.dim == 3 else pgd)


def measure(
    change: dict[str, Any], config: TheoryConfig, told: Callable[[int], None] = lambda _: None, trail: bool = False
) -> Cell:
    """Train the runs of a cell side by side and read off its numbers; `told` hears how many rounds are done."""
    if config.static:
        return _static(change, config)
    problem, algorithm, loss = config.problem, config.federated, Loss(config.network.bend)
    points, width, dtype = points_of(problem, config.seed), config.network.width, PRECISE[config.runtime.dtype.name]
    kind, seeds = Pseudo if config.network.pseudo else Network, range(config.seed, config.seed + config.seeds)
    network = kind.draw(width, problem.dim, seeds, dtype)
    regret = None
    if config.comparator_steps and problem.dim == 3:
        horizon = algorithm.step * algorithm.rounds
        fixed = best_fixed(network, points, loss, Cap(problem.rho).widest, horizon, config.comparator_steps)
        regret = Regret(network, loss, fixed, algorithm.step)
    judge = judge_of(network, problem)
    recorder = Recorder(network, points, loss, judge, algorithm.step, algorithm.every, regret)
    kept = [network.start[0, 0]]

    def watch(at: Round) -> None:
        recorder.watch(at)
        if trail and at.number % algorithm.every == 0:
            kept.append(at.after[0])
        told(at.number)

    adversary = adversary_of(network, problem.rho, config.adversary)
    weights = federated(network, points, loss, adversary, algorithm, watch)
    every = points.all()
    values = _of_curves(recorder, config) | bounds(network, every, loss, weights, problem)
    found = separation(every.x[0], every.y[0])
    gamma = found.gamma(problem.rho)
    told_of = {"delta": found.delta, "rho": problem.rho, "gamma": gamma, "inverse_gamma": 1 / gamma, "n": every.count}
    values |= {name: [float(value)] * config.seeds for name, value in {**told_of, "width": width}.items()}
    if regret is not None:
        values |= {"fixed_robust": regret.fixed.robust.tolist(), "fixed_distance": regret.fixed.distance.tolist()}
    return Cell(change, values, recorder.records, network, every, kept if trail else [])


def _of_curves(recorder: Recorder, config: TheoryConfig) -> Values:
    """The last record, the largest drift, and when targets were reached."""
    robust, rounds = recorder.curve("robust"), recorder.curve("round")[:, 0].tolist()
    values: Values = {name: recorder.curve(name)[-1].tolist() for name in recorder.records[-1]}
    values["drift"] = recorder.curve("drift")[1:].amax(0).tolist()
    for target in config.targets:
        first = [_first(curve <= target) for curve in robust.T]
        values[f"rounds_to_{target:g}"] = [None if at is None else rounds[at] for at in first]
        distance = recorder.curve("distance_f")
        values[f"distance_f_at_{target:g}"] = [
            None if at is None else float(distance[at, run]) for run, at in enumerate(first)
        ]
    for moment in config.moments:
        values[f"robust_at_{moment}"] = robust[rounds.index(moment)].tolist()
    return values


def _first(reached: Tensor) -> int | None:
    places = reached.nonzero()
    return int(places[0]) if len(places) else None


def bounds(network: Network, points: Points, loss: Loss, weights: Tensor, problem: ProblemConfig) -> Values:
    """The triangle PGD <= exact <= CROWN, intervals at the weights [runs, m, d]: mean losses of every run, and of the
    points the share where PGD-20 comes within 1e-3 of the exact worst case. The pseudo-network has no certified bounds.
    """
    own, half = weights[:, None].double(), Cap(problem.rho).widest if problem.rho else 0.0
    wide = type(network)(network.outer.double(), network.bias.double(), network.start.double())
    x, y = points.x.double()[None], points.y.double()[None]
    pgd = adversary_of(wide, problem.rho, AdversaryConfig(name=AdversaryName.pgd, steps=20, restarts=STARTS))
    climbed = (wide.predict(own, pgd(own, x, y, (0, 0))) - y).abs()
    sizes, values = {"pgd20": climbed}, dict[str, list[float | None]]()
    if not isinstance(network, Pseudo):
        layer, support = (own, wide.outer, wide.bias), certify.cap(x, half)
        sizes["crown"] = certify.crown_bounds(*layer, support).worst(y)
        sizes["interval"] = certify.interval_bounds(*layer, support).worst(y)
    if problem.dim == 3:
        sizes["exact"] = wide.worst(own, x, y, half)[1]
        below = sizes["exact"] - climbed
        values["pgd_within"] = (below < WITHIN).double().mean((1, 2)).tolist()
        values["pgd_above"] = (-below).clamp(min=0).amax((1, 2)).tolist()
        if "crown" in sizes:
            values["certified_below"] = (sizes["exact"] - sizes["crown"]).clamp(min=0).amax((1, 2)).tolist()
    return values | {name: loss.value(size).mean((1, 2)).tolist() for name, size in sizes.items()}


def _static(change: dict[str, Any], config: TheoryConfig) -> Cell:
    """The lemmas of section 2.3, a network and a set of points a seed."""
    lemmas, width, values = config.lemmas, config.network.width, dict[str, list[float | None]]()
    for seed in range(config.seed, config.seed + config.seeds):
        network = Network.draw(width, lemmas.dim, [seed])
        x = random_points(lemmas.points, lemmas.dim, 1000 + seed)
        found = static_lemmas(network, x, lemmas.gap_at, lemmas.flips_at)
        for name, value in found.items():
            values.setdefault(name, []).append(value)
        for name, predict in PREDICTED.items():
            values.setdefault(f"{name}_predicted", []).append(predict(width, lemmas.gap_at, lemmas.flips_at))
        values.setdefault("width", []).append(float(width))
    return Cell(change, values)


def work(config: TheoryConfig) -> int:
    """How much there is to do in a cell, in local steps of a network of width 1024."""
    return max(1, math.ceil(config.federated.rounds * config.federated.local_steps * config.network.width / 1024))
