"""From data and a radius to rates, rounds and width: what the theorem says, what a pilot says, what then happens."""

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.errors import UserError
from fal.adversary.balls import HEIGHT, RADIUS
from fal.planner_config import PlannerConfig
from fal.theorem.adversary import adversary_of
from fal.theorem.cells import judge_of, points_of
from fal.theorem.config import AdversaryConfig, AdversaryName, FederatedConfig, LocalRate, ProblemConfig
from fal.theorem.coordinates import Recorder
from fal.theorem.federated import federated
from fal.theorem.network import Loss, Network, Pseudo
from fal.theorem.points import Points, Separation, separation

COUPLED = 1.0
"""Above this eta_local K m^(1/3) a local pass leaves the regime where f and g agree (fact sheet, 1.7 and 2.4)."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """One column: what to set, and what to expect."""

    name: str
    distance: float | None
    """R; None where nothing is known. Of the theory its order, as log10."""
    step: float
    """e."""
    eta_local: float
    rounds: float | None
    """T; of the theory as log10."""
    width: float | None
    """m; of the theory as log10."""
    orders: bool = False
    """Are distance, rounds and width powers of ten?"""
    robust: float | None = None
    gap: float | None = None
    drift: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Given:
    """The data of a plan."""

    name: str
    count: int
    """n, of all clients."""
    separation: Separation
    points: Points
    """Those of the pilot."""
    problem: ProblemConfig


def on_x(images: Tensor) -> Tensor:
    """Images [n, ...] as points of X [n, d + 1]: each of length sqrt(3)/2, then 1/2.

    Raises:
        UserError: an image is 0 everywhere and has no direction.
    """
    flat = images.flatten(1)
    length = flat.norm(dim=1, keepdim=True)
    if (length == 0).any():
        first = int((length[:, 0] == 0).nonzero()[0])
        raise UserError(f"image {first} is 0 everywhere and has no place on X; leave it out")
    return torch.cat([RADIUS * flat / length, torch.full_like(length, HEIGHT)], 1)


def given(config: PlannerConfig) -> Given:
    """The data, checked.

    Raises:
        UserError: delta <= 2 rho; names the two closest points and their clients.
    """
    problem = replace(config.problem, rho=config.rho)
    if config.data is None:
        points = points_of(problem, config.seed)
        every = points.all()
        found = separation(every.x[0], every.y[0])
        return Given(f"{problem.points} points of X, d = {problem.dim}", points.count, found, points, problem)
    from fal.data import load
    from fal.partition import partition

    train = load(config.data)["train"]
    parts = partition(train.y, config.partition, config.seed, train.owners)
    held = torch.cat(parts)
    owners = [client for client, part in enumerate(parts) for _ in part]
    x = on_x(train.x[held])
    log.info("distances of %d points in dimension %d", len(x), x.shape[1])
    found = separation(x, train.y[held])
    named = Separation(found.delta, (int(held[found.pair[0]]), int(held[found.pair[1]])))
    named.check(config.rho, dict(zip(held.tolist(), owners, strict=True)), "rho")
    each = max(1, min(config.pilot.points // len(parts), min(map(len, parts))))
    few = torch.stack([part[:each] for part in parts])
    y = 2 * train.y[few].double() / (train.classes - 1) - 1  # classes as numbers from -1 to 1
    problem = replace(problem, dim=x.shape[1], points=few.numel(), clients=len(parts))
    points = Points(on_x(train.x[few.flatten()]).double().unflatten(0, few.shape), y)
    return Given(train.name, len(held), named, points, problem)


def theory(config: PlannerConfig, data: Given) -> Plan:
    """The orders of the theorem (section 1.7): R and m as (NJ / eps)^(1 / gamma), T = R^2 / eps^2, e = eps."""
    order = math.log10(data.count / config.eps) / data.separation.gamma(config.rho)
    rounds = 2 * order - 2 * math.log10(config.eps)
    return Plan("theory says", order, config.eps, 1 / config.local_steps, rounds, order, orders=True)


def pilot(config: PlannerConfig, data: Given) -> Plan:
    """The best of a few short runs, carried on in a straight line where it did not reach the loss.

    Raises:
        UserError: the start has reached it already.
    """
    tried = [_run(config, data, step, config.pilot.rounds) for step in config.pilot.steps]
    best = min(tried, key=lambda each: each.robust)
    if best.start <= config.eps:
        raise UserError(f"eps={config.eps:g}: the start has robust loss {best.start:.4g} already; use a smaller one")
    fell = best.start - best.robust
    if fell <= 0:
        note = "no step tried lowers the loss: give the pilot more rounds or other steps"
        return replace(best.plan("pilot says", config), distance=None, rounds=None, note=note)
    if best.reached is not None:
        return best.plan("pilot says", config)
    factor = (best.start - config.eps) / fell
    note = f"the pilot came to {best.robust:.3f} in {config.pilot.rounds} rounds; R and T go on in a straight line"
    made = best.plan("pilot says", config)
    return replace(made, distance=best.distance * factor, rounds=config.pilot.rounds * factor, note=note)


def check(config: PlannerConfig, data: Given, plan: Plan) -> Plan | None:
    """The plan of the pilot carried out; None where there is nothing to carry out."""
    if plan.rounds is None or not config.most_rounds:
        return None
    rounds = min(config.most_rounds, math.ceil(1.5 * plan.rounds))
    found = _run(config, data, plan.step, rounds)
    made = found.plan("then measured", config)
    if found.reached is None:
        return replace(made, rounds=None, note=f"eps={config.eps:g} was not reached in {rounds} rounds")
    return made


def warnings(config: PlannerConfig, plans: list[Plan]) -> list[str]:
    """What leaves the regime of the proof."""
    told = []
    for plan in plans:
        product = plan.eta_local * config.local_steps * config.network.width ** (1 / 3)
        if config.local_steps > 1 and product > COUPLED:
            told.append(
                f"{plan.name}: eta_local K m^(1/3) = {product:.3g} at m = {config.network.width} leaves the coupled "
                f"regime ({COUPLED:g} at most): unlike clients stall; use eta_local = c m^(-1/3) / K with c up to "
                f"{COUPLED:g}, here {COUPLED * config.network.width ** (-1 / 3) / config.local_steps:.3g}"
            )
    return told


@dataclass(frozen=True)
class _Ran:
    """A run, means over its seeds."""

    step: float
    start: float
    """Robust loss before the first round."""
    robust: float
    """The best one."""
    reached: int | None
    """Round at which eps was reached."""
    distance: float
    """R_F then, or at the end."""
    gap: float
    drift: float

    def plan(self, name: str, config: PlannerConfig) -> Plan:
        width = config.network.width
        eta_local = config.width_factor * width ** (-1 / 3) / config.local_steps
        needed = width * max(1.0, self.gap / (config.eps / 2)) ** 6  # gaps fall like m^(-1/6)
        return Plan(
            name, self.distance, self.step, eta_local, self.reached, needed,
            robust=self.robust, gap=self.gap, drift=self.drift,
        )  # fmt: skip


def _run(config: PlannerConfig, data: Given, step: float, rounds: int) -> _Ran:
    problem, seeds = data.problem, range(config.seed, config.seed + config.pilot.seeds)
    kind, loss = Pseudo if config.network.pseudo else Network, Loss(config.network.bend)
    network = kind.draw(config.network.width, problem.dim, seeds)
    usual = AdversaryConfig(name=AdversaryName.exact if problem.dim == 3 else AdversaryName.pgd)
    algorithm = FederatedConfig(
        rounds=rounds, local_steps=config.local_steps, step=step, local_rate=LocalRate.width,
        width_factor=config.width_factor, every=max(1, rounds // 80),
    )  # fmt: skip
    recorder = Recorder(network, data.points, loss, judge_of(network, problem), step, algorithm.every)
    adversary = adversary_of(network, problem.rho, config.adversary or usual)
    federated(network, data.points, loss, adversary, algorithm, recorder.watch)
    curves = {name: recorder.curve(name).mean(1) for name in ("robust", "distance_f", "gap", "drift", "round")}
    reached = (curves["robust"] <= config.eps).nonzero().flatten().tolist()
    at = reached[0] if reached else -1
    return _Ran(
        step,
        float(curves["robust"][0]),
        float(curves["robust"].min()),
        int(curves["round"][at]) if reached else None,
        float(curves["distance_f"][at]),
        float(curves["gap"][at]),
        float(curves["drift"][1:].max()),
    )
