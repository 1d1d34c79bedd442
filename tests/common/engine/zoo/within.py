"""A network within the network, and gradients, maps and other weights of its own."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from common.engine.weights import call
from tests.common.engine.zoo.layers import batch_norm
from tests.common.engine.zoo.replays import in_segments, replaced_buffer, written_buffers
from tests.common.engine.zoo.shape import (
    AUTO,
    EVERY,
    WIDTH,
    WORDS,
    Checkpointed,
    Own,
    Shape,
    chain,
    linear,
    number,
    stored_whole,
    tokens,
)
from tests.common.engine.zoo.sharing import two_names


def inner_gradient() -> nn.Module:
    """Of an energy by its inputs."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.layer(x).tanh().square().sum(), x, create_graph=True)[0]

    return Own(run, layer=linear())


def mapped_rows() -> nn.Module:
    return Own(lambda self, x: torch.func.vmap(lambda row: torch.tanh(self.layer(row)))(x), layer=linear())


def other_weights() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        doubled = {name: 2 * w for name, w in self.both.named_parameters()}
        return torch.func.functional_call(self.both, doubled, (x,))

    return Own(run, both=two_names())


def hypernetwork() -> nn.Module:
    """Its layer is checkpointed, and has what another computes for weights."""

    def run(self: Any, x: Tensor) -> Tensor:
        return call(self.layer, {"part.0.weight": self.hyper(x.mean(0)).view(WIDTH, WIDTH)}, x)

    return Own(run, layer=Checkpointed(linear(), nn.Tanh()), hyper=nn.Linear(WIDTH, WIDTH * WIDTH))


def shared_storage() -> nn.Module:
    net = chain()
    net[2].weight = nn.Parameter(net[0].weight.data)
    return net


def pruned() -> nn.Module:
    net = chain()
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


def clamped() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.clamp_(-0.2, 0.2)
        return torch.tanh(self.layer(x))

    return Own(run, layer=linear())


WITHIN = {
    "a map over rows": Shape(mapped_rows),
    "functional_call of a part": Shape(other_weights),
    "a hypernetwork": Shape(hypernetwork, plain=stored_whole),
    "two parameters in one storage": Shape(shared_storage),
    "pruned": Shape(pruned),
    "an empty parameter": Shape(
        lambda: Own(lambda self, x: self.layer(x) + self.none.sum(), layer=linear(), none=number(0, WIDTH))
    ),
    "spectral norm, buffers in the mapping": Shape(
        lambda: chain(parametrizations.spectral_norm(linear())), mapped=True
    ),
    "gradient by the inputs": Shape(inner_gradient),
    "weights clamped in forward": Shape(clamped, message="writes to the weight weight", refused=EVERY),
    "Embedding with max_norm": Shape(
        lambda: nn.Sequential(nn.Embedding(WORDS, WIDTH, max_norm=0.5), nn.Tanh(), linear()), tokens(2, 3),
        message="max_norm=None", refused=EVERY,
    ),
    "cumulative batch norm, buffers in the mapping": Shape(
        lambda: chain(nn.BatchNorm1d(WIDTH, momentum=None)), mapped=True,
        message="without data.*by hand", refused=AUTO,
    ),
    "checkpointed batch norm": Shape(lambda: Checkpointed(batch_norm()), plain=stored_whole),
    "checkpointed batch norm, buffers in the mapping": Shape(
        lambda: Checkpointed(batch_norm()), plain=stored_whole, mapped=True
    ),
    "checkpointed spectral norm": Shape(
        lambda: Checkpointed(chain(parametrizations.spectral_norm(linear()))), plain=stored_whole
    ),
    "checkpoint_sequential of written buffers": Shape(
        lambda: in_segments(written_buffers(), replaced_buffer(), batch_norm()), plain=stored_whole
    ),
}  # fmt: skip
