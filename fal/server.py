"""The server's side of a round: weights of clients, rules that make one update of many, and what it refuses.

An update is a mapping of names to tensors, the weights of a client less those it was sent.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from common.engine.weights import Weights, averaged, stack_of
from common.errors import UserError
from fal.settings import Form, MethodConfig
from fal.trust import Aggregator, AggregatorConfig

Shares = Callable[[str], Sequence[float]]
"""Name of a weight -> what each client counts in its mean."""
LONGEST = 1e6
"""An update so many times as long as the median one is rejected."""


# ---- what clients count


def same_for_all(shares: Sequence[float]) -> Shares:
    """Whatever the name of the weight."""
    return lambda _: shares


def slack_shares(
    losses: Sequence[float], sizes: Sequence[float], method: MethodConfig, batch_norm: Collection[str] = ()
) -> Shares:
    """SFAT's shares of the clients, by name of a weight: those with the smallest adversarial losses are favoured.

    `published`: they weigh (1 + alpha) / (1 - alpha), the others 1, and all is divided by the sum. `released`: the
    first client enters the divisor as a favoured one whatever it is, and of entries of batch norm no other one is
    favoured; the shares then sum to less than 1 in the rounds in which another client is the favoured one.

    Args:
        losses: adversarial loss of every client, summed over its last local epoch.
        sizes: what clients count without favour.
        method: alpha, number of favoured clients, form.
        batch_norm: names of its entries.
    """
    factor = (1 + (method.alpha or 0.0)) / (1 - (method.alpha or 0.0))
    ranked = sorted(range(len(losses)), key=lambda client: (losses[client], client))
    favoured = set(ranked[: method.favoured or 1])

    def shares(name: str) -> list[float]:
        plain = method.form is Form.released and name in batch_norm
        weights = [
            size * (factor if client in favoured and (client == 0 or not plain) else 1.0)
            for client, size in enumerate(sizes)
        ]
        divisor = sum(weights)
        if method.form is Form.released:
            divisor += sizes[0] * factor - weights[0]
        return [weight / divisor for weight in weights]

    return shares


# ---- rules


def fewest(config: AggregatorConfig) -> int:
    """Updates that a rule needs."""
    return max(1, 2 * (config.trimmed or 0) + 1, 0 if config.byzantine is None else 2 * config.byzantine + 3)


def check_rule(config: AggregatorConfig, count: int) -> None:
    """See that a rule can work on so many updates.

    Raises:
        UserError: they are too few.
    """
    cut, bad = config.trimmed or 0, config.byzantine
    if count <= 2 * cut:
        raise UserError(f"aggregator.trimmed={cut} of {count} updates leaves none; use less than {count / 2:g}")
    if bad is not None and count <= 2 * bad + 2:
        raise UserError(
            f"aggregator.byzantine={bad} of {count} updates: Krum needs more than 2 f + 2 = {2 * bad + 2}; use more "
            "clients, or a smaller f"
        )


def combined(config: AggregatorConfig, updates: Sequence[Weights], shares: Shares, own: Weights) -> Weights:
    """The change of the global weights `own` by the updates, before the server's rate.

    Of a mean it is sum_c share_c W_c - U: shares that do not sum to 1 shrink or stretch U as well.
    """
    if config.name is not Aggregator.mean:
        return aggregate(config, updates, shares(""))
    change = {}
    for name, weight in own.items():
        mine = shares(name)
        total = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for update, share in zip(updates, mine, strict=True):
            total.add_(update[name].to(total.dtype) * share)
        lost = sum(mine) - 1
        change[name] = total + lost * weight if abs(lost) > 1e-9 else total
    return change


def aggregate(config: AggregatorConfig, updates: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """One update of many by a robust rule. Clipping and the geometric median weigh by `shares`, the others do not.

    Raises:
        UserError: too few updates for the rule.
    """
    rule, count = config.name, len(updates)
    check_rule(config, count)
    if rule is Aggregator.clipping:
        factors = [min(1.0, (config.norm or 0.0) / max(length, 1e-30)) for length in map(norm, updates)]
        return averaged(stack_of(updates), [share * factor for share, factor in zip(shares, factors, strict=True)])
    if rule is Aggregator.geometric_median:
        return geometric_median(updates, shares, config.iterations or 1)
    if rule is Aggregator.median:
        return {name: _middle(value.sort(0).values) for name, value in stack_of(updates).items()}
    if rule is Aggregator.trimmed_mean:
        cut = config.trimmed or 0
        if cut == 0:
            return averaged(stack_of(updates), [1 / count] * count)
        return {name: value.sort(0).values[cut : count - cut].mean(0) for name, value in stack_of(updates).items()}
    chosen = krum_order(updates, config.byzantine or 0)[: (config.kept or 1) if rule is Aggregator.multi_krum else 1]
    return averaged(stack_of([updates[client] for client in chosen]), [1 / len(chosen)] * len(chosen))


def _middle(ordered: Tensor) -> Tensor:
    """The median over the first axis, of an even number the mean of the two in the middle."""
    count = len(ordered)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def krum_order(updates: Sequence[Weights], byzantine: int) -> list[int]:
    """Clients by the sum of squared distances to their N - f - 2 nearest, the smallest first."""
    count, flat = len(updates), flattened(updates)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = distances.sort(1).values[:, 1 : count - byzantine - 1]
    scores = nearest.sum(1).tolist()
    return sorted(range(count), key=lambda client: (scores[client], client))


def geometric_median(updates: Sequence[Weights], shares: Sequence[float], iterations: int) -> Weights:
    """The point of smallest weighted sum of distances, by Weiszfeld's iterations from the mean."""
    flat, weights = flattened(updates), torch.tensor(shares, dtype=torch.float64)
    centre = (weights[:, None] * flat).sum(0) / weights.sum()
    for _ in range(iterations):
        closeness = weights / (flat - centre).norm(dim=1).clamp(min=1e-12)
        centre = (closeness[:, None] * flat).sum(0) / closeness.sum()
    found, at = {}, 0
    for name, like in updates[0].items():
        found[name] = centre[at : at + like.numel()].view(like.shape).to(like)
        at += like.numel()
    return found


def flattened(updates: Sequence[Weights]) -> Tensor:
    """Every update as one row, in float64 on the CPU."""
    return torch.stack([torch.cat([w.flatten() for w in update.values()]).double().cpu() for update in updates])


# ---- a mean without keeping what it is of


class Sum:
    """Weights or updates added up one after the other."""

    def __init__(self) -> None:
        self.total: Weights = {}
        self.parts = 0.0

    def add(self, values: Weights, part: float) -> None:
        """`part` times the values; the largest of integers, as `averaged` has it."""
        for name, w in values.items():
            if not w.is_floating_point():
                self.total[name] = torch.maximum(self.total.get(name, w), w)
                continue
            if name not in self.total:
                self.total[name] = torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32))
            self.total[name].add_(w, alpha=part)
        self.parts += part

    @property
    def mean(self) -> Weights:
        """The sum over the sum of the parts."""
        return {name: w / self.parts if w.is_floating_point() else w for name, w in self.total.items()}


def propagated(before: Weights, mean: Weights, able: float, names: str) -> Weights:
    """FedRBN: buffers whose names begin with `names` as the mean over the clients that moved them, others as they are.

    Args:
        before: what all clients began with.
        mean: over all clients; those that cannot afford attacks have sent back what they began with.
        able: share of those that can; with 0 nothing has moved.
    """

    def own(name: str, w: Tensor) -> Tensor:
        if not name.startswith(names) or not w.is_floating_point() or not able:
            return w
        return before[name] + (w - before[name]) / able

    return {name: own(name, w) for name, w in mean.items()}


# ---- what is refused


def norm(update: Mapping[str, Tensor]) -> float:
    """Euclidean, over all tensors; 0 of none."""
    each = [torch.linalg.vector_norm(w if w.is_floating_point() else w.double(), dtype=torch.float64)
            for w in update.values()]  # fmt: skip
    return float(torch.linalg.vector_norm(torch.stack(each))) if each else 0.0


def fault(update: Mapping[str, Tensor], like: Mapping[str, Tensor], length: float | None = None) -> str:
    """Why an update is none of the weights `like`, in words; empty: it is one. `length`: its norm, where known."""
    if update.keys() != like.keys():
        odd = sorted(update.keys() ^ like.keys())
        return f"has other names than the network: {', '.join(odd[:3])}"
    for name, own in like.items():
        if update[name].shape != own.shape:
            return f"{name} has shape {list(update[name].shape)} in place of {list(own.shape)}"
        if update[name].dtype != own.dtype:
            return f"{name} has type {update[name].dtype} in place of {own.dtype}"
    return "" if isfinite(norm(update) if length is None else length) else "is not finite"


def too_long(norms: Sequence[float]) -> list[int]:
    """Places of norms that are more than `LONGEST` times the median."""
    middle = sorted(norms)[(len(norms) - 1) // 2] if norms else 0.0
    return [place for place, length in enumerate(norms) if length > LONGEST * middle > 0]
