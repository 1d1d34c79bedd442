"""PERK's outer step as one writes it with `higher`: what the released code is built on."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.rates import LearnedRates
from common.engine.settings import InnerConfig
from common.engine.weights import Weights
from perk.objective import Weigher
from scripts.benchmark.engine_others import library


class Training(Protocol):
    """What this engine is given, by `scripts.benchmark.perk_case`."""

    inner: InnerConfig
    network: nn.Module
    start: Weights
    rates: LearnedRates
    weigher: Weigher
    segments: Tensor
    question: Tensor


def higher(bench: Training) -> Callable[[], None]:
    """One outer gradient with differentiable AdamW; in truncated steps the gradient's graph is made and cut off."""
    patches = library("higher")
    patches.register_optim(torch.optim.AdamW, _differentiable_adamw(patches))
    inner = bench.inner
    groups = [{"params": [w]} for w in bench.start.values()]
    optimiser = torch.optim.AdamW(
        groups, lr=1.0, betas=(inner.beta1, inner.beta2), eps=inner.eps, weight_decay=inner.weight_decay
    )

    def outer_step() -> None:
        with patches.innerloop_ctx(bench.network, optimiser, copy_initial_weights=False) as (fast, steps):
            for step in range(inner.steps):
                cut = _constant if step < inner.steps - inner.keep else None
                rates = list(bench.rates(step).values())
                steps.step(_memorised(fast, bench), override={"lr": rates}, grad_callback=cut)
            losses, _ = _next_token(fast, bench.question)
            losses.mean().backward()

    return outer_step


def _memorised(fast: nn.Module, bench: Training) -> Tensor:
    """Next-token loss of all segments, weighted by token."""
    losses, states = _next_token(fast, bench.segments)
    return (losses * bench.weigher(states[:, 1:].to(losses.dtype))).mean()


def _next_token(fast: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [rows, length - 1] and last hidden states [rows, length, width]."""
    logits, states = fast(ids)
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(ids), -1), states


def _constant(gradients: Any) -> list[Tensor | None]:
    return [None if gradient is None else gradient.detach() for gradient in gradients]


def _differentiable_adamw(patches: Any) -> type:
    """The AdamW that the library lacks, after its own Adam."""

    class DifferentiableAdamW(patches.optim.DifferentiableOptimizer):
        def _update(self, grouped_grads: Any, **_: Any) -> None:
            for number, (group, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
                beta1, beta2 = group["betas"]
                for place, (w, g) in enumerate(zip(group["params"], grads, strict=True)):
                    state = self.state[number][place]
                    count = state["step"] = state.get("step", 0) + 1
                    mean = state["mean"] = beta1 * state.get("mean", 0.0) + (1 - beta1) * g
                    square = state["square"] = beta2 * state.get("square", 0.0) + (1 - beta2) * g * g
                    zero = square == 0  # where the root has no derivative
                    root = torch.where(zero, 0.0, torch.where(zero, 1.0, square / (1 - beta2**count)).sqrt())
                    direction = mean / (1 - beta1**count) / (root + group["eps"])
                    group["params"][place] = w * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * direction

    return DifferentiableAdamW


class WithStates(nn.Module):
    """A causal language model that gives its last hidden states too; it finds them by hooks, which `higher` loses."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        network.model.layers.__class__ = Layers

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [rows, length, vocabulary] and states [rows, length, width]."""
        states = self.network.model(input_ids=ids, use_cache=False).last_hidden_state
        return self.network.lm_head(states), states


class Layers(nn.ModuleList):
    """A list that gives slices as plain lists: those of torch cannot be made of modules that `higher` has patched."""

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(self)[place]
        return super().__getitem__(place)
