"""A network with weights from outside: one client's or a stack's, in training or in evaluation mode."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from common.engine.plan import chunk_of
from common.engine.weights import Weights, buffers_of, call, select, unstack
from fal.programs import Programs

ATTACKED = "attacked."
"""Before the names of batch norm's statistics of attacked points."""


class Network:
    """Calls a module with weights and buffers of one client, or of a stack with a leading client axis.

    The module is never written to. Its two modes are two modules, so that none is switched back and forth.
    """

    def __init__(
        self, module: nn.Module, *, compiled: bool = False, captured: bool = False, dual: bool = False
    ) -> None:
        """`module` gives the start and is copied; clients' weights are leaves of their own.

        `compiled`, `captured`: its gradients are (`fal.programs`). `dual`: batch norm has statistics of its own for
        attacked points, by which the network predicts; its weights are those of clean points, too.
        """
        self.dual = dual
        self.programs = Programs(compiled=compiled, captured=captured)
        self._chunks: dict[tuple[torch.Size, int], int] = {}
        self.modes = {mode: deepcopy(module).train(mode).requires_grad_(False) for mode in (True, False)}
        self.parameters, self.buffers = list(select(module)), list(buffers_of(module))
        normed = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
        self.batch_norm = {f"{name}.{own}" for name, layer in normed for own, _ in layer.named_parameters()}

    def start(self) -> tuple[Weights, Weights]:
        """Copies of the module's parameters, and of its buffers."""
        weights, buffers = select(self.modes[True]), buffers_of(self.modes[True])
        weights = {name: w.clone() for name, w in weights.items()}
        return weights, buffers | {ATTACKED + name: b.clone() for name, b in buffers.items() if self.dual}

    def module(self, weights: Weights, buffers: Weights) -> nn.Module:
        """A module of its own that holds these, in evaluation mode."""
        found = deepcopy(self.modes[False]).to(next(iter(weights.values())).dtype)
        found.load_state_dict({**weights, **self.statistics(buffers, attacked=True)})
        return found

    def modules(self, weights: Weights, buffers: Weights) -> list[nn.Module]:
        """The one that predicts; of a stack every client's."""
        name, own = next(iter(select(self.modes[False]).items()))
        if weights[name].dim() == own.dim():
            return [self.module(weights, buffers)]
        return [self.module(unstack(weights, c), unstack(buffers, c)) for c in range(len(weights[name]))]

    def statistics(self, weights: Weights, *, attacked: bool) -> Weights:
        """`weights` with one set of batch norm's statistics, under the module's names."""
        if not self.dual:
            return weights
        plain = {name: w for name, w in weights.items() if not name.startswith(ATTACKED)}
        return {name: weights.get(ATTACKED + name, w) for name, w in plain.items()} if attacked else plain

    def __call__(
        self, weights: Weights, x: Tensor, *, training: bool = True, stacked: bool = False, attacked: bool = False
    ) -> Tensor:
        """Logits under `weights`, which may name buffers too; batch norm in training mode moves those in place.

        `attacked`: by its statistics of attacked points, if it has two sets.
        """
        module, weights = self.modes[training], self.statistics(weights, attacked=attacked)
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
