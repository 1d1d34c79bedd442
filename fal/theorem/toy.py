"""The paper's toy experiment (fact sheet, section 3): FedAvg of adversarially trained networks of one hidden layer on
clusters in a plane, all levels, seeds and clients of a rate side by side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from zlib import crc32

import torch
from torch import Tensor

from common.engine.inner import adapt
from common.engine.rules import SGD
from common.engine.settings import Unroll
from common.engine.weights import Weights
from fal.adversary.balls import Linf
from fal.adversary.config import AttackConfig
from fal.adversary.gains import cross_entropy_gain
from fal.attack import attack
from fal.images.config import DataConfig
from fal.images.generated import clusters
from fal.toy_config import ToyConfig

TITLE = "Toy experiment: accuracy after some rounds, under attack at the end, and the largest stable rate"


def columns_of(config: ToyConfig) -> list[str]:
    """What its table shows."""
    columns = [f"{split}_{moment}" for moment in config.moments for split in ("train", "test")]
    return columns + (["robust", "largest_stable"] if config.stable.halvings else ["robust"])


@dataclass(frozen=True)
class Sets:
    """Points [runs, items, 2] and labels [runs, items] of two splits; the runs are seeds within levels."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass
class Curves:
    """By round, of every run [rounds, runs]; a run that diverged has its last values or none that are finite."""

    train: Tensor
    """Accuracy on the clean training points."""
    test: Tensor
    robust: Tensor
    """Accuracy on attacked test points, at the end [runs]."""
    loss: Tensor
    """Adversarial training loss."""
    weights: Weights
    """At the end [runs, ...]."""


def sets_of(config: ToyConfig) -> Sets:
    """The same draws at every level, multiplied by its scale."""
    found = []
    for scale in config.scales:
        for seed in range(config.seed, config.seed + config.seeds):
            of = replace(config.clusters, scale=scale)
            data = DataConfig(
                "clusters", train=config.train, test=config.test, seed=seed, classes=len(of.means), clusters=of
            )
            made = [clusters(data, split, count) for split, count in (("train", config.train), ("test", config.test))]
            order = torch.randperm(config.train, generator=torch.Generator().manual_seed(seed))
            found.append([made[0].x[order], made[0].y[order], made[1].x, made[1].y])
    return Sets(*(torch.stack(each) for each in zip(*found, strict=True)))


def start_of(config: ToyConfig, inputs: int, classes: int) -> Weights:
    """torch's default start of two linear layers, of every run [levels * seeds, ...]; the levels of a seed share it."""
    found: dict[str, list[Tensor]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        draw = torch.Generator().manual_seed(seed)
        shapes = {
            "w1": (config.hidden, inputs),
            "b1": (config.hidden,),
            "w2": (classes, config.hidden),
            "b2": (classes,),
        }
        for name, shape in shapes.items():
            fan = inputs if name.endswith("1") else config.hidden
            uniform = torch.rand(shape, generator=draw) * 2 - 1
            found.setdefault(name, []).append(config.init_scale * uniform / math.sqrt(fan))
    return {name: torch.stack(each).repeat(len(config.scales), *[1] * each[0].ndim) for name, each in found.items()}


def logits(weights: Weights, x: Tensor) -> Tensor:
    """[..., items, classes] of weights [..., ...] and points [..., items, inputs]."""
    hidden = torch.relu(x @ weights["w1"].mT + weights["b1"][..., None, :])
    return hidden @ weights["w2"].mT + weights["b2"][..., None, :]


def attacked(weights: Weights, x: Tensor, y: Tensor, config: ToyConfig, key: str) -> Tensor:
    """PGD in the box from a random start, on all stacks at once; `key` names the moment."""
    settings = AttackConfig(eps=config.eps, steps=config.attack_steps, step_size=config.step_size)
    constant, lead = {name: w.detach() for name, w in weights.items()}, x.shape[:-1]

    def gain(at: Tensor) -> Tensor:
        return cross_entropy_gain(logits(constant, at.unflatten(0, lead)), y).flatten()

    def draws(restart: int) -> Tensor:
        draw = torch.Generator().manual_seed(crc32(f"{config.seed}/{key}/{restart}".encode()))
        return torch.rand(x.shape[-2:], generator=draw).expand_as(x).flatten(0, -2)

    return attack(gain, x.flatten(0, -2), Linf(config.eps, None), settings, draws).unflatten(0, lead)


def train(config: ToyConfig, sets: Sets, rates: Tensor, told: Callable[[int], None] = lambda _: None) -> Curves:
    """All runs at a rate each [runs]."""
    runs, each = len(sets.x), config.train // config.clients
    lead = (runs, config.clients)
    x, y = (own.unflatten(1, (config.clients, each)) for own in (sets.x, sets.y))
    weights = start_of(config, x.shape[-1], len(config.clusters.means))
    curves: list[list[Tensor]] = []
    for number in range(1, config.rounds + 1):
        draw = torch.Generator().manual_seed(crc32(f"{config.seed}/round {number}".encode()))
        passes = math.ceil(config.local_steps * config.batch / each)
        order = torch.cat([torch.randperm(each, generator=draw) for _ in range(passes)])
        values: list[Tensor] = []

        def loss(
            at: Weights, step: int, order: Tensor = order, number: int = number, values: list[Tensor] = values
        ) -> Tensor:
            rows = order[step * config.batch : (step + 1) * config.batch]
            own, labels = {name: w.unflatten(0, lead) for name, w in at.items()}, y[:, :, rows]
            worst = attacked(own, x[:, :, rows], labels, config, f"{number}/{step}")
            found = cross_entropy_gain(logits(own, worst), labels)
            found = found.sum(-1) if config.summed else found.mean(-1)
            values.append(found.detach().mean(1))
            return (rates[:, None] * found).flatten()  # a run's own rate

        begin = {
            name: w[:, None].expand(runs, config.clients, *w.shape[1:]).flatten(0, 1) for name, w in weights.items()
        }
        done = adapt(
            loss, begin, lambda step: [step], steps=config.local_steps, rule=SGD(), rates=1.0, unroll=Unroll.none
        ).weights
        weights = {name: w.unflatten(0, lead).mean(1) for name, w in done.items()}
        curves.append([accuracy(weights, sets.x, sets.y), accuracy(weights, sets.x_test, sets.y_test), values[-1]])
        told(number)
    worst = attacked(weights, sets.x_test, sets.y_test, config, "test")
    train_curve, test_curve, losses = (torch.stack(each) for each in zip(*curves, strict=True))
    return Curves(train_curve, test_curve, accuracy(weights, worst, sets.y_test), losses, weights)


def accuracy(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Share of right answers of every run [runs]."""
    return (logits(weights, x).argmax(-1) == y).double().mean(-1)


def stable(curves: Curves, blow_up: float) -> Tensor:
    """Did a run's adversarial loss stay below `blow_up` times that of its first round? bool [runs]."""
    return (curves.loss.isfinite() & (curves.loss < blow_up * curves.loss[0])).all(0)


def largest_rates(config: ToyConfig, sets: Sets, told: Callable[[int], None] = lambda _: None) -> Tensor:
    """The largest stable rate of every run [runs], to a factor of (high / low)^(1 / 2^halvings); infinite where `high`
    is stable, 0 where `low` is not.
    """
    search, runs = config.stable, len(sets.x)
    low, high = (torch.full((runs,), math.log(end), dtype=torch.float64) for end in (search.low, search.high))
    ends = [stable(train(config, sets, end.exp().float()), search.blow_up) for end in (low, high)]
    for halving in range(search.halvings):
        middle = (low + high) / 2
        holds = stable(train(config, sets, middle.exp().float()), search.blow_up)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        told(halving + 1)
    return torch.where(ends[1], torch.inf, torch.where(ends[0], low.exp(), 0.0))
