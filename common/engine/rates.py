"""Inner learning rates: trainable numbers, one per weight tensor (or layer) and inner step, or plain ones."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from common.engine.given import number
from common.engine.settings import InnerConfig, RateGroup, RateSpace


def layer_of(name: str) -> str:
    """The layer a parameter belongs to: `transformer.h.3.mlp.c_fc.weight` -> `transformer.h.3`, `wte.weight` -> `wte`.

    Parameters outside numbered blocks form a layer a module.
    """
    numbered = re.match(r"(.*?\.\d+)(?:\.|$)", name)
    return numbered.group(1) if numbered else name.rpartition(".")[0] or name


class Rates(Protocol):
    """What the unrolls ask of rates."""

    row: dict[str, int]
    """Name of a weight -> its row of `rates()`."""
    steps: int
    """Columns of `rates()`; steps beyond the last reuse the last."""

    def rates(self) -> Tensor:
        """All rates, shape [rows, steps]."""
        ...

    def table(self) -> Callable[[str, int], float]:
        """(name, step) -> the value of its rate."""
        ...

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Rates of `step`, counted from 0: name -> shape []."""
        ...


class ConstantRates:
    """Plain numbers, the same at every step; they are not rounded to the precision of the weights."""

    def __init__(self, numbers: Mapping[str, float]) -> None:
        """Name of a weight -> its rate."""
        self.row = {name: index for index, name in enumerate(numbers)}
        self.steps = 1
        self.numbers = dict(numbers)

    def rates(self) -> Tensor:
        """All rates, shape [names, 1]."""
        return torch.tensor(list(self.numbers.values()), dtype=torch.double)[:, None]

    def table(self) -> Callable[[str, int], float]:
        """(name, step) -> its rate."""
        return lambda name, step: self.numbers[name]

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Name -> shape []."""
        return dict(zip(self.numbers, self.rates()[:, 0].unbind(), strict=True))


def rates_of(given: Rates | float | Mapping[str, float], names: Iterable[str]) -> Rates:
    """Rates of the weights called `names`: as given, one plain number for all, or one for each.

    Raises:
        ValueError: a weight has no rate.
        UserError: a plain one is no finite number.
    """
    rates: Rates
    if isinstance(given, Mapping):
        rates = ConstantRates({name: number(rate, f" of {name}") for name, rate in given.items()})
    elif hasattr(given, "row"):
        rates = cast(Rates, given)
    else:
        rates = ConstantRates(dict.fromkeys(names, number(given)))
    if without := set(names) - rates.row.keys():
        raise ValueError(f"no inner rate for {sorted(without)}: make the rates from the names of the start weights")
    return rates


class LearnedRates(nn.Module):
    """Rates for `names` x `steps`; steps beyond the last reuse the last (more inner steps at test time)."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        steps: int,
        start: float,
        space: RateSpace = RateSpace.raw,
        per: RateGroup = RateGroup.tensor,
        learned: bool = True,
    ) -> None:
        """Every rate begins at `start` (> 0 unless raw).

        Raises:
            ValueError: `start` is not a rate that `space` can express.
        """
        super().__init__()
        groups = [name if per is RateGroup.tensor else layer_of(name) for name in names]
        self.groups = list(dict.fromkeys(groups))
        row = {group: index for index, group in enumerate(self.groups)}
        self.row = {name: row[group] for name, group in zip(names, groups, strict=True)}
        self.steps = steps
        self.space = RateSpace(space)
        self.numbers = nn.Parameter(
            torch.full((len(self.groups), steps), _number(start, self.space)), requires_grad=learned
        )

    def rates(self) -> Tensor:
        """All rates, shape [groups, steps]."""
        if self.space is RateSpace.exp:
            return self.numbers.exp()
        if self.space is RateSpace.softplus:
            return nn.functional.softplus(self.numbers)
        return self.numbers

    def forward(self, step: int) -> dict[str, Tensor]:
        """Rates of `step`, counted from 0: name -> shape []."""
        column = self.rates()[:, min(step, self.steps - 1)].unbind()
        return {name: column[row] for name, row in self.row.items()}

    def table(self) -> Callable[[str, int], float]:
        """(name, step) -> the value of its rate, all read at once."""
        values = self.rates().detach().tolist()
        return lambda name, step: float(values[self.row[name]][min(step, self.steps - 1)])

    def summary(self) -> dict[str, float]:
        """Smallest, median and largest rate and the share below zero, for the log."""
        rates = self.rates().detach()
        return {
            "min": rates.min().item(),
            "median": rates.median().item(),
            "max": rates.max().item(),
            "negative_share": (rates < 0).double().mean().item(),
        }


def _number(rate: float, space: RateSpace) -> float:
    """The stored number that stands for `rate`: the inverse of `LearnedRates.rates`."""
    if not math.isfinite(rate):
        raise ValueError(f"a rate of {rate}: use a finite number")
    if space is RateSpace.raw:
        return rate
    if rate <= 0:
        raise ValueError(f"a rate of {rate} cannot be expressed in {space} space: it must be positive")
    if space is RateSpace.exp:
        return math.log(rate)
    return rate + math.log(-math.expm1(-rate))


def make_rates(config: InnerConfig, names: Sequence[str]) -> LearnedRates:
    """The rates that the settings describe, for weights called `names`."""
    return LearnedRates(
        names, steps=config.steps, start=config.lr, space=config.space, per=config.per, learned=config.learned
    )
