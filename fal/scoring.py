"""Who is classified right under which attack -> items, and numbers of classes and clients, with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist, mean

import torch
from torch import Tensor

from common.run.items import Item, OfAll
from common.run.results import Interval
from common.tables.estimates import Jackknife
from common.tables.intervals import wilson
from common.tables.summary import summarise as summarised
from fal.objective import SELECTION

LAST, RECENT = "last", "recent"
"""Values of the slice `round`: the last one, and the mean of the last few. Items without it are of the selected one."""
LOWEST = 0.2
"""Share of the clients whose mean is the lowest fifth."""

Right = Mapping[str, Tensor]
"""Metric -> who of the split is classified right by which model, [models, items], 0 or 1; one model in a federation, in
local training one a client."""


@dataclass(frozen=True)
class Judged:
    """A split under attack."""

    best: Right
    """By the selected weights."""
    last: Right
    recent: Right
    """Share of the last rounds in which an item is classified right."""


def items_of(judged: Judged, y: Tensor, split: str) -> list[Item]:
    """An item an image; those of the last and of recent rounds are further passes over the split."""
    found = []
    for right, which in ((judged.best, ""), (judged.last, LAST), (judged.recent, RECENT)):
        named = {metric: (v[0] if len(v) == 1 else v.double().mean(0)).tolist() for metric, v in right.items()}
        for place, label in enumerate(y.tolist()):
            scores = {metric: (values[place], 1) for metric, values in named.items()}
            slices: dict[str, str | int] = {"class": label} | ({"round": which} if which else {})
            found.append(Item(f"{split}/{place}", f"image {place}", scores, slices, "round" if which else ""))
    return found


def of_classes(right: Tensor, y: Tensor, counts: Tensor) -> dict[str, OfAll]:
    """Accuracy of the worst class, of the worst client and of the lowest fifth of the clients.

    Each is sum_k w_k accuracy_k: of one class, of a client's own mixture of the classes, of the mean of some clients'.
    Classes without an image count nowhere, and neither do clients who have no other. As a share each is one of
    1 / sum_k (w_k^2 / n_k) images, with n_k of class k.

    Args:
        right: [items], 0 or 1.
        y: labels [items].
        counts: images of each client and class, [clients, classes].
    """
    classes = counts.shape[1]
    wins = torch.zeros(classes, dtype=torch.float64).index_add(0, y, right.double())
    sizes = torch.bincount(y, minlength=classes).double()
    each = list(zip(y.tolist(), right.int().tolist(), strict=True))
    without = {}  # an item leaves in one of two ways: right or wrong
    for label in set(y.tolist()):
        gone = torch.eye(classes, dtype=torch.float64)[label]
        for win in (0, 1):
            without[label, win] = _numbers(wins - win * gone, sizes - gone, counts)
    found = {}
    for name, (value, of) in _numbers(wins, sizes, counts).items():
        groups = {f"image {place}": without[left][name][0] for place, left in enumerate(each)}
        found[name] = OfAll(value, groups, of)
    return found


def _numbers(wins: Tensor, sizes: Tensor, counts: Tensor) -> dict[str, tuple[float, float | None]]:
    """Name -> sum_k w_k accuracy_k, and of how many images it is a share."""
    accuracy = wins / sizes
    own = counts.double() * ~accuracy.isnan()
    mixed = own / own.sum(1, keepdim=True)  # a client who counts nowhere has no mixture
    order = (mixed @ accuracy.nan_to_num()).argsort(stable=True)
    worst = accuracy == accuracy[~accuracy.isnan()].min()
    chosen = {
        "worst_class": torch.eye(len(sizes), dtype=torch.float64)[torch.where(worst, sizes, torch.inf).argmin()],
        "worst_client": mixed[order[0]],
        "lowest_fifth": mixed[order[: max(1, round(LOWEST * len(counts)))]].nanmean(0),
    }
    found: dict[str, tuple[float, float | None]] = {}
    for name, w in chosen.items():
        value = float((w @ accuracy.nan_to_num()).nan_to_num(1.0).clamp(max=1.0))
        found[name] = value, None if w.isnan().any() else float(1 / (w.square() / sizes.clamp(min=1)).sum())
    return found


def of_models(right: Tensor, y: Tensor, counts: Tensor) -> dict[str, OfAll]:
    """The same where each client may have a model, right [models, items]: a client is judged by its own, and the
    worst class is the mean over the models, each with its own."""
    if len(right) == 1:
        return of_classes(right[0], y, counts)
    each = [of_classes(own, y, counts[client : client + 1]) for client, own in enumerate(right)]
    lowest = max(1, round(LOWEST * len(each)))
    ways: dict[str, tuple[str, Callable[[list[float]], float]]] = {
        "worst_class": ("worst_class", mean),
        "worst_client": ("worst_client", min),
        "lowest_fifth": ("worst_client", lambda values: mean(sorted(values)[:lowest])),
    }
    found = {}
    for name, (of, way) in ways.items():
        numbers = [its[of] for its in each]
        groups = {group: way([its.without[group] for its in numbers]) for group in numbers[0].without}
        counted = [its.count for its in numbers if its.count is not None]
        found[name] = OfAll(way([its.value for its in numbers]), groups, min(counted, default=None))
    return found


def summarise(items: list[Item], of_all: Mapping[str, OfAll], confidence: float) -> dict[str, Interval]:
    """Every metric with its interval; the headline also by class, and by round."""
    metrics = {metric for item in items for metric in item.scores}
    by = {metric: ["round", *(["class"] if metric == SELECTION.metric else [])] for metric in metrics}
    found = summarised(items, confidence, by=by)
    width = NormalDist().inv_cdf((1 + confidence) / 2)
    for name, number in of_all.items():
        half = width * float((Jackknife.of(number.value, number.without).moves ** 2).sum()) ** 0.5
        low, high = max(0.0, number.value - half), min(1.0, number.value + half)
        if number.count is not None:
            least = wilson(number.value, number.count, width)
            low, high = min(low, least[0]), max(high, least[1])
        found[name] = Interval(number.value, len(number.without), low, high)
    return found
