"""A federation small enough for float64: random images of three classes, an MLP or a CNN."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.weights import Weights
from fal.adversary.config import AttackConfig
from fal.federation import Federation
from fal.methods import Batch, Local
from fal.network import Network
from fal.settings import FederationConfig, Form, MethodConfig, Objective, Optimiser, OptimiserConfig
from fal.states import fresh_states
from fal.trust import AggregatorConfig
from fal.workload import clients_of

CLASSES, ITEMS = 3, 24
ATTACK = AttackConfig(eps=0.1, steps=3)
METHODS: dict[str, dict[str, Any]] = {
    "fedavg": {"objective": Objective.clean},
    "fat": {"objective": Objective.adversarial, "fraction": 1.0},
    "fal": {"objective": Objective.adversarial, "fraction": 1.0},
    "calfat": {"objective": Objective.calibrated, "scale": 10.0},
    "sfat": {
        "objective": Objective.adversarial, "fraction": 1.0,
        "slack": True, "alpha": 1 / 6, "favoured": 1, "form": Form.published,
    },
    "mixed": {"objective": Objective.mixed, "adversarial_share": 0.5},
    "trades": {"objective": Objective.trades, "beta": 6.0},
    "mart": {"objective": Objective.mart, "beta": 5.0},
    "dbfat": {"objective": Objective.dbfat, "beta": 1.5, "gamma": 1.0},
    "fedrbn": {"objective": Objective.mixed, "adversarial_share": 0.5, "able": 0.5},
    "free": {"objective": Objective.free, "replays": 2},
}  # fmt: skip


def method(name: str, **more: Any) -> MethodConfig:
    """A method of the tables."""
    return MethodConfig(**{"name": name, "title": name, **METHODS[name], **more})


def optimiser(name: str = "fedavg", **more: Any) -> OptimiserConfig:
    """An optimiser with a rate of 0.3."""
    own = {"mu": 0.1} if name in ("fedprox", "feddyn") else {}
    return OptimiserConfig(**{"name": Optimiser(name), "lr": 0.3, **own, **more})


def net(kind: str = "mlp", seed: int = 0) -> nn.Module:
    """In float64."""
    torch.manual_seed(seed)
    if kind == "mlp":
        body = [nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, CLASSES)]
    else:
        norm = [nn.BatchNorm2d(4)] if kind == "bn" else [nn.GroupNorm(2, 4)] if kind == "gn" else []
        body = [nn.Conv2d(1, 4, 3, padding=1), *norm, nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()]
        body += [nn.Flatten(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*body).double()


def images(seed: int = 0, items: int = ITEMS) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], every class as often."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(items, 1, 6, 6, generator=draw, dtype=torch.float64), torch.arange(items) % CLASSES


def federation(
    name: str = "fat",
    parts: Sequence[Tensor] | int = 4,
    *,
    kind: str = "mlp",
    module: nn.Module | None = None,
    attack: AttackConfig = ATTACK,
    optimised: OptimiserConfig | None = None,
    aggregator: AggregatorConfig | None = None,
    seed: int = 0,
    data: tuple[Tensor, Tensor] | None = None,
    changed: dict[str, Any] | None = None,
    **settings: Any,
) -> Federation:
    """Of `parts`, or of so many equal ones; `changed` keys of the method, `settings` of the federation."""
    x, y = data or images()
    parts = list(torch.arange(len(y)).chunk(parts)) if isinstance(parts, int) else parts
    of = method(name, **(changed or {}))
    network = Network(module or net(kind), dual=of.able is not None)
    local = Local(network, of, copy(attack))
    config = FederationConfig(**{"local_steps": 3, **settings})
    clients = clients_of(parts, y, CLASSES, x.dtype, config.batch)
    rule = optimised or optimiser()
    states = fresh_states(network, rule, [client.number for client in clients], x.dtype, x.device)
    return Federation(local, (x, y), clients, config, rule, aggregator or AggregatorConfig(), seed, *states)


class Quadratic:
    """|w - a|^2 / 2 in place of a network's loss, of a single weight `w`; every label has its own a."""

    attack_gradients = 0

    def __init__(self, found: Federation, targets: Sequence[float]) -> None:
        self.method, self.targets = found.method, torch.tensor(targets, dtype=torch.float64)
        zero = {"w": torch.zeros(1, dtype=torch.float64)}
        found.local, found.server.weights, found.server.variate = self, zero, zero  # type: ignore[assignment]
        found.states.variates = {client.number: zero for client in found.clients}
        found.config.stack = False

    def attacked(self, _: Weights, batch: Batch) -> Tensor:
        return batch.x

    def loss(self, weights: Weights, batch: Batch, _: Tensor) -> Tensor:
        return (weights["w"] - self.targets[batch.y]).square() / 2


def trained(found: Federation, rounds: int = 3) -> Weights:
    """The global weights after some rounds."""
    for number in range(1, rounds + 1):
        found.round(number)
    return found.server.weights


def apart(a: Weights, b: Weights) -> float:
    """Largest difference."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
