"""A paper about pictures in a hundred lines: clients train one small network together, on attacked pictures.

`fat` attacks the pictures that it trains on, `clean` does not. No language anywhere. `tests/toy/test_toy.py` holds what
it asks of `common` to loops over clients and to torch's own optimisers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from common.engine.inner import adapt
from common.engine.rules import SGD, SignSGD
from common.engine.settings import Unroll
from common.engine.weights import Weights, averaged, buffers_of, call, select, stack, stack_of
from common.run import media
from common.run.items import Item, OfAll, score_of, write_of_all
from common.run.results import Interval, Results, Selection
from common.run.run import Run, RunIdentity
from common.run.schema import RunConfig
from common.tables.summary import summarise

SELECTION = Selection("pgd20", higher_is_better=True)
CLIENTS, CLASSES, SIDE = 4, 3, 8
EPS = 0.08
"""Half the width of the box around a picture."""


@dataclass
class MethodConfig:
    name: str = "fat"
    eps: float = EPS
    """In training; 0 attacks nothing."""


@dataclass
class ToyConfig(RunConfig):
    method: MethodConfig = field(default_factory=MethodConfig)
    rounds: int = 30


def network() -> nn.Module:
    """Of two convolutions, the first with batch norm."""
    body = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(72, CLASSES)).double()


def pictures(seed: int, split: str, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Stripes across, stripes down, or a spot, and which of them; picture i is a function of (seed, split, i)."""
    made, labels = [], []
    for index in range(first, first + count):
        draw = torch.Generator().manual_seed(crc32(f"{seed}/{split}/{index}".encode()))
        label, phase = (int(torch.randint(high, (), generator=draw)) for high in (CLASSES, 4))
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        spot = ((y - 2 - phase) ** 2 + (x - 3) ** 2) < 6
        shape = [(y + phase) % 4 < 2, (x + phase) % 4 < 2, spot][label].double()
        made.append(0.35 + 0.3 * shape + 0.25 * (torch.rand(SIDE, SIDE, generator=draw).double() - 0.5))
        labels.append(label)
    return torch.stack(made)[:, None], torch.tensor(labels)


def attacked(net: nn.Module, weights: Weights, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """PGD by the inner loop: the pictures are its weights, a step is a sign, and the box is its projection."""
    net.eval()  # the running statistics of all pictures, whose gradients then have nothing to do with each other

    def gain(at: Weights, _: object) -> Tensor:
        return -F.cross_entropy(call(net, weights, at["x"]), y, reduction="sum")

    def box(at: Weights) -> Weights:
        return {"x": at["x"].clamp(x - eps, x + eps).clamp(0, 1)}

    unroll = Unroll.none
    return adapt(gain, {"x": x}, steps=steps, rule=SignSGD(), rates=eps / 4, project=box, unroll=unroll).weights["x"]


def client_loss(net: nn.Module, buffers: Weights) -> Callable[[Weights, tuple[Tensor, Tensor]], Tensor]:
    """Cross-entropy of every client [clients] of a stack, each with its own running statistics, which it moves."""

    def one(weights: Weights, own: Weights, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(call(net, weights | own, x), y)

    return lambda weights, part: torch.func.vmap(one)(weights, buffers, *part)


def federated_round(net: nn.Module, x: Tensor, y: Tensor, lr: float = 0.2, steps: int = 4) -> tuple[Weights, float]:
    """Weights and statistics after `steps` steps of every client on its own pictures [clients, pictures, ...]."""
    net.train()
    buffers = stack_of([buffers_of(net)] * len(x))
    start = stack(select(net), len(x))
    loss = client_loss(net, buffers)
    found = adapt(loss, start, [(x, y)], steps=steps, rule=SGD(), rates=lr, unroll=Unroll.none)
    shares = [1 / len(x)] * len(x)
    return averaged(found.weights, shares) | averaged(buffers, shares), float(found.losses[-1].mean())


def items_of(net: nn.Module, seed: int, split: str, count: int) -> list[Item]:
    """An item a picture: right as it is, and right under attack."""
    x, y = pictures(seed, split, 0, count)
    worst = attacked(net, {}, x, y, EPS, steps=20)
    with torch.no_grad():
        right = [(net(each).argmax(-1) == y).int().tolist() for each in (x, worst)]
    return [
        Item(f"{split}/{i}", f"picture {i}", {"natural": (a, 1), "pgd20": (b, 1)}, {"class": int(y[i])})
        for i, (a, b) in enumerate(zip(*right, strict=True))
    ]


def shift_of(net: nn.Module, seed: int, split: str, count: int) -> OfAll:
    """How far attacks move the mean prediction of each class; of all pictures together, and without each of them."""
    x, y = pictures(seed, split, 0, count)
    with torch.no_grad():
        moved = net(attacked(net, {}, x, y, EPS, steps=20)).softmax(-1) - net(x).softmax(-1)
    classes = F.one_hot(y, CLASSES).to(moved)

    def distance(kept: Tensor) -> float:
        return float((classes[kept].T @ moved[kept] / classes[kept].sum(0)[:, None]).norm())

    every = torch.arange(count)
    return OfAll(distance(every), {f"picture {i}": distance(every[every != i]) for i in range(count)})


def save_gif(path: Path, x: Tensor, worst: Tensor) -> None:
    """A picture and its attack, one after the other."""
    frames = [Image.fromarray((each * 255).byte().numpy()).resize((64, 64)) for each in (x, worst)]
    path.parent.mkdir(exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500)


def train(config: ToyConfig, folder: Path) -> Results:
    """Rounds, selection under attack, test."""
    who = RunIdentity("toy", "shapes", config.method.name, config.scale, config.seed)
    with Run(folder, config, config.runtime, config.tracker, config.loop, who, SELECTION) as run:
        if run.finished:
            return run.results
        net = network()
        run.track("network", net)
        for step in run.steps(config.rounds):
            x, y = pictures(config.seed, "train", step * 96, 96)
            if config.method.eps:
                x = attacked(net, {}, x, y, config.method.eps, steps=4)
            clients = x.unflatten(0, (CLIENTS, -1)), y.unflatten(0, (CLIENTS, -1))
            state, loss = federated_round(net, *clients)
            net.load_state_dict(state)
            run.log(step, "train", loss=loss, **run.cost)
            if run.due(config.loop.evaluate_every):
                score = score_of(items_of(net, config.seed, "dev", 40), SELECTION.metric)
                run.log(step, "dev", **{SELECTION.metric: score})
                run.select(score)
            run.save_if_due(step)
        run.restore_best("network")
        items, shift = items_of(net, config.seed, "test", 120), shift_of(net, config.seed, "test", 120)
        x, y = pictures(config.seed, "test", 0, 1)
        save_gif(run.folder / media.FOLDER / "attack.gif", x[0, 0], attacked(net, {}, x, y, EPS, 20)[0, 0])
        write_of_all(run.folder, {"shift": shift})
        metrics = summarise(items, 0.95, by={"pgd20": ["class"]})
        metrics["shift"] = Interval(shift.value, len(shift.without), shift.value, shift.value)
        return run.finish(metrics, items)
