"""Inner update rules as pure functions of weights, gradients, state and rates.

Each rule takes the same step as its `torch.optim` namesake and can be differentiated through, moments included.
State starts fresh for every task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.bilevel import InnerConfig, RuleName
from common.weights import Weights

Rates = Mapping[str, Tensor]
"""Name of a weight -> its learning rate in this step, shape []."""


@dataclass(frozen=True)
class RuleState:
    """What a rule remembers between steps: `count` steps taken and, per buffer, one tensor a weight."""

    count: int
    buffers: dict[str, Weights]


class UpdateRule(Protocol):
    """One step of an optimiser, written as a function."""

    def start(self, weights: Weights) -> RuleState:
        """The state before the first step."""
        ...

    def step(self, weights: Weights, gradients: Weights, state: RuleState, rates: Rates) -> tuple[Weights, RuleState]:
        """The weights and the state after one step; nothing is written in place."""
        ...


def guarded_sqrt(x: Tensor) -> Tensor:
    """Square root with derivative 0 instead of infinity where `x` is exactly 0 (embedding rows never used)."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).sqrt())


@dataclass(frozen=True)
class SGD:
    """w <- w - rate * (g + weight_decay * w)."""

    weight_decay: float = 0.0

    def start(self, weights: Weights) -> RuleState:
        """No buffers."""
        return RuleState(0, {})

    def step(self, weights: Weights, gradients: Weights, state: RuleState, rates: Rates) -> tuple[Weights, RuleState]:
        """One step of gradient descent."""
        moved = {
            name: w - rates[name] * (gradients[name] + self.weight_decay * w if self.weight_decay else gradients[name])
            for name, w in weights.items()
        }
        return moved, RuleState(state.count + 1, {})


@dataclass(frozen=True)
class Momentum:
    """v <- momentum * v + g (v = g at the first step, as in torch); w <- w - rate * v."""

    momentum: float = 0.9
    weight_decay: float = 0.0

    def start(self, weights: Weights) -> RuleState:
        """The velocity is made by the first step."""
        return RuleState(0, {})

    def step(self, weights: Weights, gradients: Weights, state: RuleState, rates: Rates) -> tuple[Weights, RuleState]:
        """One step of heavy-ball momentum."""
        moved: Weights = {}
        velocity: Weights = {}
        for name, w in weights.items():
            g = gradients[name] + self.weight_decay * w if self.weight_decay else gradients[name]
            velocity[name] = g if state.count == 0 else self.momentum * state.buffers["velocity"][name] + g
            moved[name] = w - rates[name] * velocity[name]
        return moved, RuleState(state.count + 1, {"velocity": velocity})


@dataclass(frozen=True)
class AdamW:
    """Adam with bias correction and decoupled weight decay; defaults as in torch.optim."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def start(self, weights: Weights) -> RuleState:
        """The moments are made by the first step."""
        return RuleState(0, {})

    def step(self, weights: Weights, gradients: Weights, state: RuleState, rates: Rates) -> tuple[Weights, RuleState]:
        """One step of AdamW."""
        count = state.count + 1
        correction1 = 1 - self.beta1**count
        correction2 = 1 - self.beta2**count
        moved: Weights = {}
        mean: Weights = {}
        square: Weights = {}
        for name, w in weights.items():
            g = gradients[name]
            mean[name] = (1 - self.beta1) * g
            square[name] = (1 - self.beta2) * g * g
            if state.count:
                mean[name] = mean[name] + self.beta1 * state.buffers["mean"][name]
                square[name] = square[name] + self.beta2 * state.buffers["square"][name]
            scale = guarded_sqrt(square[name] / correction2) + self.eps
            moved[name] = w * (1 - rates[name] * self.weight_decay) - rates[name] * (mean[name] / correction1) / scale
        return moved, RuleState(count, {"mean": mean, "square": square})


def make_rule(config: InnerConfig) -> UpdateRule:
    """The rule that `inner.rule` names, with its settings."""
    if config.rule is RuleName.sgd:
        return SGD(config.weight_decay)
    if config.rule is RuleName.momentum:
        return Momentum(config.momentum, config.weight_decay)
    return AdamW(config.beta1, config.beta2, config.eps, config.weight_decay)
