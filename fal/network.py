"""A network with weights from outside: one client's or a stack's, in training or in evaluation mode."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from common.engine.plan import chunk_of
from common.engine.weights import Weights, buffers_of, call, select
from fal.programs import Programs

Forward = Callable[[Tensor], Tensor]
"""Points [*clients, items, ...] -> logits [*clients, items, classes]."""


class Network:
    """Calls a module with weights and buffers of one client, or of a stack with a leading client axis.

    The module is never written to. Its two modes are two modules, so that none is switched back and forth.
    """

    def __init__(self, module: nn.Module, *, compiled: bool = False, captured: bool = False) -> None:
        """`module` gives the start and is copied; clients' weights are leaves of their own.

        `compiled`, `captured`: its gradients are (`fal.programs`).
        """
        self.programs = Programs(compiled=compiled, captured=captured)
        self._chunks: dict[tuple[torch.Size, int], int] = {}
        self.modes = {mode: deepcopy(module).train(mode).requires_grad_(False) for mode in (True, False)}
        self.parameters, self.buffers = list(select(module)), list(buffers_of(module))
        normed = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
        self.batch_norm = {f"{name}.{own}" for name, layer in normed for own, _ in layer.named_parameters()}

    def start(self) -> tuple[Weights, Weights]:
        """Copies of the module's parameters, and of its buffers."""
        return {name: w.clone() for name, w in select(self.modes[True]).items()}, buffers_of(self.modes[True])

    def module(self, weights: Weights, buffers: Weights) -> nn.Module:
        """A module of its own that holds these, in evaluation mode."""
        found = deepcopy(self.modes[False]).to(next(iter(weights.values())).dtype)
        found.load_state_dict({**weights, **buffers})
        return found

    def __call__(self, weights: Weights, x: Tensor, *, training: bool = True, stacked: bool = False) -> Tensor:
        """Logits under `weights`, which may name buffers too; batch norm in training mode moves those in place."""
        module = self.modes[training]
        if not stacked:
            return call(module, weights, x)
        return torch.func.vmap(lambda own, images: call(module, own, images))(weights, x)

    def chunk(self, weights: Weights, buffers: Weights, part: tuple[Tensor, Tensor], clients: int) -> int:
        """How many of `clients` whose batches have the shapes of `part` go at once, by what a step of one works."""
        key = (part[0].shape, clients)
        if key not in self._chunks:

            def loss(own: Weights, part: tuple[Tensor, Tensor]) -> Tensor:
                return cross_entropy(self({**own, **buffers}, part[0], training=False), part[1])

            self._chunks[key] = chunk_of(loss, weights, part, part[0].device, tasks=clients, shared=False)
        return self._chunks[key]
