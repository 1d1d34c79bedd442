"""The cases of FAL's benchmark: rounds of a federation, and judging a robust model."""

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from common.engine.weights import Weights
from common.errors import UserError
from common.run.schema import to_typed
from fal.adversary.config import AttackConfig, Start
from fal.adversary.gains import LABEL_GAINS, Classifier
from fal.attack import attack, ball_of
from fal.client import Work
from fal.data import load
from fal.federation import Federation
from fal.images.config import DataConfig
from fal.keys import Key
from fal.methods import Local
from fal.model import build
from fal.network import Network
from fal.networks.config import ModelConfig
from fal.settings import FederationConfig, MethodConfig, Objective, OptimiserConfig
from fal.states import fresh_states
from fal.trust import AggregatorConfig
from fal.workload import clients_of
from scripts.benchmark.fal_groups import CHOICE, COMPILED, EARLY, FLUKE, LEAN, LOOP, PLAN, STACK, USUAL, VMAP, Case
from scripts.benchmark.fal_libraries import Fluke, flower_rounds
from scripts.benchmark.fal_others import CHUNK, Loops
from scripts.benchmark.measuring import allocated_peak, peak_of, seconds_of, settle

SIDE, CLASSES, ITEMS = 28, 10, 6400
"""Of the images, random ones, which clients share: so many clients' memory is their own."""
EPS, RATE = 0.1, 0.05
ATTACK = AttackConfig(eps=EPS, steps=7, step_size=EPS / 4)
METHOD = MethodConfig("fat", "FAT", Objective.adversarial, fraction=1.0)
FLUKES = (
    replace(ATTACK, steps=10, step_size=2 / 255, start=Start.none),
    MethodConfig("mixed", "clean and adversarial", Objective.mixed, adversarial_share=0.5),
)
"""What fluke's FAT does: its attack, which in 0.8.1 has its defaults whatever the keys say (eps 0.1), and its loss."""


def network_of(case: Case, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """As conf/fal/model/<model>.yaml has it."""
    file = files("conf.fal") / "model" / f"{case.model}.yaml"
    config = OmegaConf.structured(ModelConfig)
    config.merge_with(OmegaConf.create(file.read_text(encoding="utf-8")))
    return build(to_typed(config, ModelConfig), 1, SIDE, CLASSES, 0).to(dtype)


class Bench:
    """A federation, and the loops on the same work."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        draw = torch.Generator().manual_seed(1)
        x = torch.rand(ITEMS, 1, SIDE, SIDE, generator=draw, dtype=dtype)
        y = torch.randint(CLASSES, (ITEMS,), generator=draw)
        attack, method = FLUKES if case.work == FLUKE else (ATTACK, METHOD)
        items = case.batch * (1 if case.work == FLUKE else case.steps)  # fluke's batches are those of one order
        parts = [torch.randint(ITEMS, (items,), generator=draw) for _ in range(case.clients)]
        module = network_of(case, dtype).to(case.device)
        network = Network(module, compiled=case.engine == COMPILED)
        clients = clients_of(parts, y, CLASSES, dtype, case.batch)
        config = FederationConfig(batch=case.batch, local_steps=case.steps, stack=case.engine != LOOP)
        optimiser = OptimiserConfig(lr=RATE)
        states = fresh_states(network, optimiser, [each.number for each in clients], dtype, x.device)
        self.federation = Federation(
            Local(network, method, attack), (x, y), clients, config, optimiser, AggregatorConfig(), 0, *states
        )
        if case.engine in (STACK, COMPILED):
            self.federation.chunk = lambda work, clients: min(CHUNK, clients)  # type: ignore[method-assign]
        self.start = self.federation.server.state
        self.loops = Loops(module, {**self.start[0], **self.start[1]}, (x, y), attack)

    @property
    def works(self) -> list[Work]:
        """Of the first round."""
        found = [self.federation.work(client, 1) for client in self.federation.clients]
        return [work for work in found if work is not None]

    def run(self, engine: str) -> Weights:
        """The global weights after the first round."""
        loops = {USUAL: self.loops.usual, LEAN: self.loops.lean, VMAP: self.loops.vmap}
        if engine in loops:
            return loops[engine](self.works, RATE)
        server = self.federation.server
        server.weights, server.buffers = self.start
        self.federation.round(1)
        return server.weights

    def apart(self, found: Weights, other: Weights) -> float:
        """Largest difference of two rounds."""
        return max(float((found[name] - other[name]).abs().max()) for name in self.start[0])


def round_of(case: Case) -> dict[str, Any]:
    """A round, in turn with the lean loop."""
    bench = Bench(case)
    found: dict[str, Weights] = {}

    def run(engine: str) -> Callable[[], None]:
        return lambda: found.update({engine: bench.run(engine)})

    first = seconds_of(run(case.engine), case.device)
    settle([], case.device)
    peak = peak_of(run(case.engine), case.device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    settle([], case.device)
    allocated = allocated_peak(run(case.engine), case.device)
    seconds, beside = [], []
    run(LEAN)()
    for _ in range(case.repeats):
        seconds.append(seconds_of(run(case.engine), case.device))
        beside.append(seconds_of(run(LEAN), case.device))
    return {
        "seconds": seconds, "beside": beside, "first": first, "peak": peak, "allocated": allocated,
        "resident": resident, "difference": bench.apart(found[case.engine], found[LEAN]),
    }  # fmt: skip


def choice(case: Case) -> dict[str, Any]:
    """A round by the way that the plan takes and by the other one, each in turn with the lean loop."""
    way, benches = replace(case, work="round"), {}
    for engine in (LOOP, STACK):
        benches[engine] = Bench(replace(way, engine=engine))
        benches[engine].run(engine)
    bench = Bench(way)
    stacked = bench.federation.chunk(bench.works[0], case.clients) > 1
    bench.run(LEAN)
    seconds: dict[str, list[float]] = {LOOP: [], STACK: []}
    beside: dict[str, list[float]] = {LOOP: [], STACK: []}
    for _ in range(case.repeats):
        for engine, its in benches.items():
            seconds[engine].append(seconds_of(partial(its.run, engine), case.device))
            beside[engine].append(seconds_of(partial(bench.run, LEAN), case.device))
    taken, other = (STACK, LOOP) if stacked else (LOOP, STACK)
    return {
        "seconds": seconds[taken], "beside": beside[taken], "stacked": stacked,
        "other": [lean / own for own, lean in zip(seconds[other], beside[other], strict=True)],
    }  # fmt: skip


@cache
def bench_of(case: Case) -> Bench:
    """In a worker of Flower's: made once."""
    torch.set_num_threads(1)
    return Bench(case)


def beside(case: Case) -> dict[str, Any]:
    """A library's round, or ours on the same work."""
    bench = Bench(case)
    start = {**bench.start[0], **bench.start[1]}
    if case.engine == case.work:
        if case.engine == FLUKE:
            loops = bench.loops
            fluke = Fluke(loops.network, loops.images, bench.works, loops.attack, RATE)
            found: Weights = fluke.round(start)
            first, *seconds = (seconds_of(lambda: fluke.round(start), "cpu") for _ in range(1 + case.repeats))
        else:

            def trained(client: int, weights: Weights) -> Weights:
                own = bench_of(case)
                own.loops.start = weights
                return own.loops.usual(own.works[client : client + 1], RATE)

            (first, *seconds), found = flower_rounds(case.clients, start, trained, 1 + case.repeats)
        return {"seconds": seconds, "first": first, "difference": bench.apart(found, bench.run(PLAN))}
    first, *seconds = (seconds_of(lambda: bench.run(PLAN), case.device) for _ in range(1 + case.repeats))
    return {"seconds": seconds, "first": first}


IMAGES, PASSES, ROBUST = 1000, 10, 0.4
"""Images that a model is trained on and as many that it is judged on, and how many it should be right on under attack.
"""


def judge(case: Case) -> dict[str, Any]:
    """PGD-20 on a model trained here, at the radius under which it is right on about 40 % of the images."""
    config = DataConfig("shapes", train=IMAGES, validation=IMAGES, test=1, side=SIDE)
    splits = load(config)
    module, seen, x, y = network_of(case), splits["train"], splits["dev"].x, splits["dev"].y
    loops = Loops(
        module,
        {k: v.clone() for k, v in module.state_dict().items()},
        (seen.x, seen.y),
        replace(ATTACK, eps=EPS / 4, step_size=EPS / 16),
    )
    batches = torch.arange(IMAGES).split(case.batch) * PASSES
    loops.lean([Work(Key(0, 0, 0), batches, torch.zeros(CLASSES), 1)], RATE)
    module.eval().requires_grad_(False)

    def points(eps: float) -> Tensor:
        gain = Classifier(module, y, LABEL_GAINS[ATTACK.loss])
        pgd = AttackConfig(eps=eps, steps=20, step_size=eps / 4)
        early = case.engine == EARLY
        return attack(
            gain, x, ball_of(pgd), pgd, lambda r: Key(0, 0, "judge").uniform(0, f"{r}", x.shape), early_exit=early
        )

    def robust(eps: float) -> float:
        return float((module(points(eps)).argmax(-1) == y).float().mean())

    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if robust(middle) > ROBUST else (low, middle)
    if abs(robust(high) - ROBUST) > 0.05:
        raise UserError(f"the model is right on {robust(high):.0%} under attack, and {ROBUST:.0%} was to be measured")
    first, *seconds = (seconds_of(lambda: points(high), case.device) for _ in range(1 + case.repeats))
    return {"seconds": seconds, "first": first, "robust": robust(high)}


def measure(case: Case) -> dict[str, Any]:
    """The fields of a `Result`."""
    torch.set_num_threads(case.threads)
    return {"round": round_of, CHOICE: choice, "judge": judge}.get(case.work, beside)(case)
