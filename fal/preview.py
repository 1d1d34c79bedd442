"""What `python -m fal.data` prints and draws: who has what, how unlike clients are, how near classes lie."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from common.tables.grid import grid
from fal.adversary.config import AttackConfig, Norm
from fal.config import TrainConfig
from fal.images.distances import Pair, closest
from fal.images.images import Images
from fal.partition import heterogeneity, matrix, partition, shifted, validation_clients

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

WIDTH = 160
"""Of what goes to a file or a pipe."""
GREYS = " .:-=+*#%@"
MOST_CLIENTS = 10
"""Whose examples are drawn."""
GAP = 1
"""White pixels between drawn images."""


def show(splits: dict[str, Images], config: TrainConfig) -> None:
    """Print counts, the clients' matrix, distances and an example; write the figure."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    train = splits["train"]
    found = [each(train.y, config.partition, config.seed, train.owners) for each in (partition, validation_clients)]
    parts = [part for some in found for part in some]
    counts = matrix(train.y, parts, train.classes)
    console.print(_counts(splits))
    console.print(_clients(counts, config.partition.clients, str(config.partition.kind)))
    for line in separability(train, parts, config.attack):
        console.print(line, soft_wrap=True)
    if train.x.ndim == 4:
        console.print(f"Image 0 of the training split, class {int(train.y[0])}:\n{drawn(train.x[0])}")
    path = Path(config.loop.root) / "fal" / "data" / f"{config.data.source}_{config.partition.kind}_{config.seed}.png"
    path = path.with_name(path.name.replace("/", "_").replace(":", "_"))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(train, parts, counts, config).savefig(path)
    console.print(f"Figure: {path}")


def separability(train: Images, parts: list[Tensor], attack: AttackConfig) -> list[str]:
    """The closest points, who has them, and what the theorem says of the ball of the attack."""
    owner = torch.full((len(train),), -1)
    for client, part in enumerate(parts):
        owner[part] = client
    held = torch.cat(parts)
    every, other = closest(train.x[held], train.y[held])
    size = train.x[0].numel()
    stretch = math.sqrt(size) if attack.norm is Norm.linf else 1.0
    rho = attack.eps * stretch
    lines = []
    for name, pair in (("all points (the theorem's)", every), ("points of different classes", other)):
        lines.append(f"delta of {name}: {_told(pair, held, train.y, owner)}")
    reach = f" = eps sqrt({size})" if stretch > 1 else ""
    lines.append(f"The attack's ball ({attack.norm}, eps = {attack.eps:g}) reaches as far as rho{reach} = {rho:.4g}.")
    for name, delta in (("all points", every.distance), ("different classes", other.distance)):
        gamma = delta * (delta - 2 * rho)
        most = delta / 2
        needs = f"the theorem says nothing: rho must be below {most:.4g}, so eps below {most / stretch:.4g}"
        verdict = f"gamma = delta (delta - 2 rho) = {gamma:.4g} in these units" if gamma > 0 else needs
        lines.append(f"  {name}: delta {'>' if gamma > 0 else '<='} 2 rho = {2 * rho:.4g}; {verdict}")
    return lines


def _told(pair: Pair, held: Tensor, y: Tensor, owner: Tensor) -> str:
    if pair.first < 0:
        return "there are no two"
    ends = [int(held[place]) for place in (pair.first, pair.second)]
    told = [f"image {end} (class {int(y[end])}, client {int(owner[end])})" for end in ends]
    return f"{pair.distance:.4g}, between {' and '.join(told)}"


def _counts(splits: dict[str, Images]) -> RenderableType:
    first = splits["train"]
    rows = {
        "images": [f"{len(images):,}" for images in splits.values()],
        "size": ["x".join(map(str, images.x.shape[1:])) for images in splits.values()],
        "mean": [f"{float(images.x.mean()):.4f}" for images in splits.values()],
        "standard deviation": [f"{float(images.x.std()):.4f}" for images in splits.values()],
        **{
            f"class {label}": [f"{int((images.y == label).sum()):,}" for images in splits.values()]
            for label in range(first.classes)
        },
    }
    return grid(first.name, ["", *splits], [[name, *values] for name, values in rows.items()])


def _clients(counts: Tensor, training: int, kind: str) -> RenderableType:
    far = heterogeneity(counts)
    rows = [
        [
            f"client {client}" if client < training else f"client {client} (validation)",
            *(f"{count:,}" for count in row.tolist()),
            f"{int(row.sum()):,}",
            f"{float(far[client]):.3f}",
        ]
        for client, row in enumerate(counts)
    ]
    mean = float((far * counts.sum(1)).sum() / counts.sum())
    rows.append(["all", *(f"{count:,}" for count in counts.sum(0).tolist()), f"{int(counts.sum()):,}", f"{mean:.3f}"])
    head = ["", *(str(label) for label in range(counts.shape[1])), "images", "earth mover's"]
    return grid(f"Images of each client and class, {kind}; earth mover's distance to all clients' labels", head, rows)


def drawn(image: Tensor) -> str:
    """An image [channels, height, width] in characters, two a pixel."""
    levels = (image.mean(0) * len(GREYS)).long().clamp(0, len(GREYS) - 1)
    return "\n".join("".join(2 * GREYS[level] for level in row).rstrip() for row in levels.tolist())


def figure(train: Images, parts: list[Tensor], counts: Tensor, config: TrainConfig) -> Figure:
    """The matrix of clients and classes, and one image of each class of every client (vectors: where they lie)."""
    from matplotlib.figure import Figure

    clients = min(len(parts), MOST_CLIENTS)
    made = Figure(figsize=(7 + 0.7 * train.classes, 2.5 + 0.35 * len(parts)), layout="constrained")
    left, right = made.subplots(1, 2)
    image = left.imshow(counts.numpy(), aspect="auto", cmap="viridis")
    made.colorbar(image, ax=left, label="images")
    left.set(title=f"{train.name}, {config.partition.kind}", xlabel="class", ylabel="client")
    left.set(xticks=range(train.classes), yticks=range(len(parts)))
    if train.x.ndim != 4:
        right.scatter(*train.x[:, [0, -1]].T.numpy(), c=train.y.numpy(), s=4, cmap="tab10")
        right.set(title="first and last coordinate by class", aspect="equal")
        return made
    rows = [
        _row(shifted(train.x[part], config.partition, client), train.y[part], train.classes)
        for client, part in enumerate(parts[:clients])
    ]
    sheet = torch.cat(rows, 1).permute(1, 2, 0).numpy()
    side = train.shape[1] + GAP
    right.imshow(sheet[..., 0] if sheet.shape[-1] == 1 else sheet, cmap="gray", vmin=0, vmax=1, aspect="auto")
    right.set(title="an image of each class as each client sees it", xlabel="class", ylabel="client")
    right.set_xticks([side * (label + 0.5) for label in range(train.classes)], map(str, range(train.classes)))
    right.set_yticks([side * (client + 0.5) for client in range(clients)], map(str, range(clients)))
    return made


def _row(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """The first image of each class side by side [channels, side, classes * side], with white edges; black where there
    is none."""
    blank = torch.zeros_like(x[0])
    first = [x[y == label][0] if bool((y == label).any()) else blank for label in range(classes)]
    return torch.cat([F.pad(image, (0, GAP, 0, GAP), value=1.0) for image in first], 2)
