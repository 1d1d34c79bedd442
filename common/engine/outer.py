"""The outer loop's optimiser: accumulate, check, reduce over ranks, clip, step, schedule."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.engine.rates import LearnedRates
from common.engine.settings import OuterConfig, Schedule
from common.engine.value import in_words, refuse_unfit
from common.engine.weights import norm as norm_of
from common.errors import UserError

log = logging.getLogger(__name__)


class Outer:
    """AdamW over slow weights and learned rates, with a schedule.

    Attributes: `ends`, outer steps after which the rate is 0 (a branch sets it to its own), and `branches`, by the step
    after which one leaves where it ends.
    """

    def __init__(
        self,
        config: OuterConfig,
        weights: nn.Module,
        rates: LearnedRates | None,
        total_steps: int,
        schedule: Schedule = Schedule.linear,
    ) -> None:
        """Groups: decayed matrices, undecayed vectors, learned rates; the schedule scales all three.

        Args:
            config: `outer.*`.
            weights: the module whose parameters that ask for a gradient are the slow weights.
            rates: the inner rates; left alone when they are not learned.
            total_steps: outer steps of the whole run; the learning rate is 0 after them.
            schedule: how it falls after the warm-up.

        Raises:
            UserError: nothing asks for a gradient.
        """
        self.clip = config.clip
        self._refused: str | None = None
        weights_list = [p for p in weights.parameters() if p.requires_grad]
        numbers = [rates.numbers] if rates is not None and rates.numbers.requires_grad else []
        if any(p.dtype == torch.bfloat16 for p in weights_list):
            log.warning(
                "weights in bfloat16 are trained as they are: steps of outer.lr=%g round to nothing on most of them; "
                "use runtime.dtype=float32, or train an adapter, which stays in float32", config.lr
            )  # fmt: skip
        self.parameters = [*weights_list, *numbers]
        if not self.parameters:
            raise UserError(
                "nothing learns in the outer loop: all weights are frozen and the rates are not learned; unfreeze some "
                "(requires_grad_(True)), attach an adapter, or use inner.learned=true"
            )
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights_list if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in weights_list if p.dim() <= 1], "weight_decay": 0.0},
            {"params": numbers, "weight_decay": 0.0, "lr": config.rates_lr},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps
        )
        warm = config.warm_steps(total_steps)
        self.ends = total_steps
        self.branches: Mapping[int, int] = {
            falls_from(warm, end, config.decay): end for end in config.branches(total_steps)
        }
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: share_of_peak(step, warm, self.ends, schedule, config.decay)
        )

    def accumulate(self, loss: Tensor) -> float:
        """Send a `loss` ([]) of this step backward and return its value; a step's gradient is that of their sum.

        Raises:
            UserError: the loss is not finite; nothing has been written to the weights. With several ranks `step` raises
                it, on all of them, because the others would wait there for this one. Or it is no real number, or has
                no graph.
        """
        refuse_unfit(loss, {}, "outer loss")
        if not loss.requires_grad:
            raise UserError(
                "the outer loss depends on nothing that learns: it was detached or taken under torch.no_grad(), the "
                "weights were adapted with inner.unroll=none, or all that it reaches is frozen"
            )
        value = loss.item()
        if math.isfinite(value):
            with in_words():
                torch.autograd.backward(loss)
        elif _several_ranks():
            self._refused = _diverged("outer loss", value)
        else:
            self.optimizer.zero_grad()
            raise UserError(_diverged("outer loss", value))
        return value

    def step(self) -> float:
        """Sum gradients over ranks, clip, update, advance the schedule; returns the norm before clipping.

        Data parallelism by hand: DDP cannot reduce gradients of a backward pass through inner steps.

        Raises:
            UserError: the gradient, or with several ranks a loss, is not finite; nothing has been written to the
                weights.
        """
        if _several_ranks():
            self._reduce()
        norm = norm_of([p.grad for p in self.parameters if p.grad is not None])
        if not torch.isfinite(norm):
            self.optimizer.zero_grad()
            raise UserError(_diverged("norm of the outer gradient", norm.item()))
        if self.clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return norm.item()

    def _reduce(self) -> None:
        """Sum gradients over ranks; one that only some ranks have counts as 0 on the others.

        Raises:
            UserError: a rank refused a loss.
        """
        flags = [self._refused is not None, *(p.grad is not None for p in self.parameters)]
        counts = torch.tensor(flags, dtype=torch.int32, device=self.parameters[0].device)
        dist.all_reduce(counts)
        refused, *owners = counts.tolist()
        if refused:
            text, self._refused = self._refused or _diverged("an outer loss on another rank", "not finite"), None
            self.optimizer.zero_grad()
            raise UserError(text)
        for parameter, owned in zip(self.parameters, owners, strict=True):
            if owned:  # the same collectives in the same order on every rank, or they would wait for ever
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser moments and schedule position; live tensors, so copy or write them before the next `step`."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def share_of_peak(step: int, warm: int, total: int, schedule: Schedule = Schedule.linear, decay: float = 0.0) -> float:
    """Learning rate of `step` (from 0) as a share of its peak: up over `warm` steps, then down; 0 from `total` on.

    The first step already moves, and the peak is reached by the last step of the warm-up. With a `decay` it stays there
    until that share of `total` is left.
    """
    if step < warm:
        return (step + 1) / warm
    left = min(1.0, max(0.0, (total - step) / max(1, total - falls_from(warm, total, decay))))
    return left if schedule is Schedule.linear else (1 - math.cos(math.pi * left)) / 2


def falls_from(warm: int, total: int, decay: float) -> int:
    """Steps of a run of `total` after which the learning rate falls: with a `decay` at least one is left."""
    return max(warm, total - max(1, round(decay * total))) if decay else warm


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _diverged(what: str, value: float | str) -> str:
    return (
        f"{what} is {value}: the run has diverged and stops before touching the weights; "
        "lower inner.lr or outer.lr, keep learned rates positive with inner.space=exp, or lower outer.clip"
    )
