"""Layers under several names, tied weights, and parameters wherever they are held."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.adapter import Adapter, layers
from tests.common.engine.zoo.shape import WIDTH, Own, Shape, chain, in_turn, linear, number, same


def one_layer_thrice() -> nn.Module:
    return Own(in_turn("layers.0", "layers.1", "layers.2"), layers=nn.ModuleList([linear()] * 3))


def two_names() -> nn.Module:
    net = Own(in_turn("enc", "enc2", "head"), enc=linear(), head=linear())
    net.enc2 = net.enc
    return net


def two_depths() -> nn.Module:
    layer = linear()
    return Own(in_turn("deep", "layer"), deep=nn.Sequential(nn.Sequential(linear(), layer), nn.Tanh()), layer=layer)


def tied_weight() -> nn.Module:
    net = Own(in_turn("encoder", "decoder"), encoder=linear(), decoder=linear())
    net.decoder.weight = net.encoder.weight
    return net


def tied_across_containers() -> nn.Module:
    by_name, in_order = nn.ModuleDict({"a": linear(), "b": linear()}), nn.ModuleList([linear(), linear()])
    in_order[1].weight, in_order[0].bias = by_name["a"].weight, by_name["b"].bias
    kept = nn.ParameterList([by_name["b"].weight])
    return Own(
        lambda self, x: in_turn("by_name.a", "in_order.0", "in_order.1", "by_name.b")(self, x) @ self.kept[0],
        by_name=by_name, in_order=in_order, kept=kept,
    )  # fmt: skip


def nested_sharing() -> nn.Module:
    layer = linear()
    block = nn.Sequential(layer, nn.Tanh(), nn.Sequential(linear(), layer))
    return Own(in_turn("blocks.0", "again", "blocks.1"), blocks=nn.ModuleList([block, block]), again=layer)


def one_parameter_of_two_modules() -> nn.Module:
    weight = number(WIDTH, WIDTH)
    first, second = (
        Own(lambda self, x: x @ self.left, left=weight),
        Own(lambda self, x: x @ self.right.T, right=weight),
    )
    return nn.Sequential(first, nn.Tanh(), second)


SHARING = {
    "plain": Shape(chain),
    "one layer thrice": Shape(one_layer_thrice),
    "one layer thrice in a row": Shape(lambda: nn.Sequential(*[linear()] * 3)),
    "a layer under two names": Shape(two_names),
    "a layer at two depths": Shape(two_depths),
    "tied weight": Shape(tied_weight),
    "tied across containers": Shape(tied_across_containers),
    "nested sharing": Shape(nested_sharing),
    "one parameter of two modules": Shape(one_parameter_of_two_modules),
}

# Parameters


def with_list() -> nn.Module:
    weights = nn.ParameterList([number(WIDTH, WIDTH) for _ in range(3)])
    return Own(lambda self, x: torch.tanh(torch.tanh(x @ self.weights[0]) @ self.weights[2]), weights=weights)


def with_dict() -> nn.Module:
    weights = nn.ParameterDict({"in": number(WIDTH, WIDTH), "out": number(WIDTH)})
    return Own(lambda self, x: torch.tanh(x @ self.weights["in"]) * self.weights["out"], weights=weights)


def partly_frozen() -> nn.Module:
    net = chain()
    net[0].requires_grad_(False)
    return net


def with_penalty() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.body(x) + sum(w.square().sum() for w in self.parameters())

    return Own(run, body=chain())


def with_adapter() -> nn.Module:
    net = chain()
    return Adapter(net, target_modules=layers(net, ["0", "2"]), r=2, lora_alpha=4).network


def listed(by_name: bool = False) -> nn.Module:
    """Its weights also stand in a plain list; or are taken by their names."""

    def run(self: Any, x: Tensor) -> Tensor:
        first, rest = (self.a, {"b": (self.b,)}) if by_name else self.both
        return torch.tanh(x @ first) @ rest["b"][0]

    net = Own(run, a=number(WIDTH, WIDTH), b=number(WIDTH, WIDTH))
    net.both = [net.a, {"b": (net.b,)}]
    return net


def closed(how: str) -> nn.Module:
    """A function has seen its weight: in its closure, in that of a hook or of its class, or as an argument."""
    layer, weight = linear(), number(WIDTH, WIDTH)
    net = Own(lambda self, x: self.layer(x) @ weight, layer=layer, weight=weight)
    if how == "name":
        net.run = lambda self, x: self.layer(x) @ self.weight
    elif how == "hook":
        net.run = lambda self, x: self.layer(x)
        net.register_forward_hook(lambda module, inputs, output: output @ weight)
    elif how == "argument":
        net.run = partial(lambda held, self, x: self.layer(x) @ held["w"], {"w": weight})
    elif how == "class":

        class Closed(Own):
            def forward(self, *inputs: Any) -> Any:
                return self.layer(*inputs) @ weight

        net.__class__ = Closed
    return net


PARAMETERS = {
    "weights in a plain list": Shape(listed, plain=lambda net: same(net, listed(by_name=True))),
    **{
        f"a weight in the closure: {how}": Shape(partial(closed, how), plain=lambda net: same(net, closed("name")))
        for how in ("run", "hook", "argument", "class")
    },
    "ParameterList": Shape(with_list),
    "ParameterDict": Shape(with_dict),
    "scalar parameter": Shape(lambda: Own(lambda self, x: self.scale * self.layer(x), scale=number(), layer=linear())),
    "a parameter used twice": Shape(lambda: Own(lambda self, x: torch.tanh(x @ self.w) @ self.w.T, w=number(4, 4))),
    "a parameter unused": Shape(lambda: Own(lambda self, x: self.layer(x), layer=linear(), idle=number(WIDTH))),
    "partly fast": Shape(chain, fast=("2.*",)),
    "partly fast, shared": Shape(two_names, fast=("enc.weight", "head.bias")),
    "partly fast, the rest frozen": Shape(partly_frozen, fast=("2.*",)),
    "a loss that reads parameters()": Shape(with_penalty),
    "LoRA": Shape(with_adapter, fast=("*lora_*",)),
    "Bilinear and PReLU": Shape(
        lambda: Own(lambda self, x: self.b(self.p(x), x), b=nn.Bilinear(4, 4, 4), p=nn.PReLU())
    ),
}
