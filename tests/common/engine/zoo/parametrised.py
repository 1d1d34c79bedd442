"""Weights that are calculated from others."""

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as older_spectral_norm
from torch.nn.utils import weight_norm as older_weight_norm

from tests.common.engine.zoo.shape import Own, Shape, chain, linear
from tests.common.engine.zoo.sharing import tied_weight


class Symmetric(nn.Module):
    """Of a square matrix."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def symmetric() -> nn.Module:
    net = chain()
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    return net


def cached() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        with parametrize.cached():
            return self.body(self.body(x))

    return Own(run, body=symmetric())


def tied_parametrised() -> nn.Module:
    net = tied_weight()
    for layer in (net.encoder, net.decoder):
        parametrize.register_parametrization(layer, "weight", Symmetric())
    net.decoder.parametrizations.weight.original = net.encoder.parametrizations.weight.original
    return net


PARAMETRISED = {
    "parametrised": Shape(symmetric),
    "parametrised, cached in forward": Shape(cached),
    "parametrised, tied": Shape(tied_parametrised),
    "orthogonal": Shape(lambda: chain(parametrizations.orthogonal(linear()))),
    "weight norm": Shape(lambda: chain(parametrizations.weight_norm(linear()))),
    "older weight norm": Shape(lambda: chain(older_weight_norm(linear()))),
    "spectral norm": Shape(lambda: chain(parametrizations.spectral_norm(linear()))),
    "spectral norm in eval mode": Shape(lambda: chain(parametrizations.spectral_norm(linear())), train=False),
    "older spectral norm": Shape(lambda: chain(older_spectral_norm(linear()))),
}
