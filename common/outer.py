"""The outer loop's optimiser: accumulate, check, reduce over ranks, clip, step, schedule."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.bilevel import OuterConfig
from common.errors import UserError
from common.rates import LearnedRates


class Outer:
    """AdamW over slow weights and learned rates, with a linear schedule."""

    def __init__(self, config: OuterConfig, weights: nn.Module, rates: LearnedRates | None, total_steps: int) -> None:
        """Groups: decayed matrices, undecayed vectors, learned rates."""
        self.clip = config.clip
        weights_list = [p for p in weights.parameters() if p.requires_grad]
        numbers = [rates.numbers] if rates is not None and rates.numbers.requires_grad else []
        self.parameters = [*weights_list, *numbers]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights_list if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in weights_list if p.dim() <= 1], "weight_decay": 0.0},
            {"params": numbers, "weight_decay": 0.0, "lr": config.rates_lr},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps
        )
        warm = max(1, round(config.warmup * total_steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warm, max(0.0, (total_steps - step) / max(1, total_steps - warm))),
        )

    def accumulate(self, losses: Iterable[Tensor]) -> float:
        """Sum of `losses` (each []), each sent backward as it comes so that only one graph is alive at a time.

        Raises:
            UserError: a loss is not finite; nothing has been written to the weights.
        """
        total = 0.0
        for loss in losses:
            value = loss.item()
            if not torch.isfinite(loss):
                self.optimizer.zero_grad()
                raise UserError(_diverged("outer loss", value))
            loss.backward()
            total += value
        return total

    def step(self) -> float:
        """Reduce gradients over ranks, clip, update, advance the schedule; returns the norm before clipping.

        Data parallelism by hand: DDP cannot reduce gradients of a backward pass through inner steps.

        Raises:
            UserError: the gradient is not finite; nothing has been written to the weights.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if dist.is_available() and dist.is_initialized():
            for gradient in gradients:
                dist.all_reduce(gradient)
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.optimizer.zero_grad()
            raise UserError(_diverged("norm of the outer gradient", norm.item()))
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return norm.item()

    def state_dict(self) -> dict[str, Any]:
        """Optimiser moments and schedule position."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _diverged(what: str, value: float) -> str:
    return (
        f"{what} is {value}: the run has diverged and stops before touching the weights; "
        "lower inner.lr or outer.lr, keep learned rates positive with inner.space=exp, or lower outer.clip"
    )
