"""What is run again, drawn, written to and hooked."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from tests.common.engine.zoo.layers import SEQUENCE
from tests.common.engine.zoo.parametrised import symmetric
from tests.common.engine.zoo.shape import AUTO, WIDTH, Checkpointed, Own, Shape, chain, linear, stored_whole
from tests.common.engine.zoo.sharing import one_layer_thrice


def nested_checkpoints() -> nn.Module:
    return Checkpointed(linear(), nn.Tanh(), Checkpointed(linear(), nn.Tanh()), linear())


def checkpointed_sharing() -> nn.Module:
    layer = linear()
    return nn.Sequential(Checkpointed(layer, nn.Tanh(), linear()), Checkpointed(nn.Tanh(), layer))


def in_segments(*parts: nn.Module) -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return checkpoint_sequential(self.body, 2, x, use_reentrant=False) if self.on else self.body(x)

    net = Own(run, body=chain(linear(), *parts))
    net.on = True
    return net


CHECKPOINTED = {
    "checkpointed whole": Shape(lambda: Checkpointed(chain()), plain=stored_whole),
    "checkpointed layer by layer": Shape(
        lambda: nn.Sequential(*(Checkpointed(linear(), nn.Tanh()) for _ in range(3))), plain=stored_whole
    ),
    "checkpointed within a checkpoint": Shape(nested_checkpoints, plain=stored_whole),
    "checkpointed with dropout": Shape(lambda: Checkpointed(chain(nn.Dropout(0.4))), plain=stored_whole),
    "checkpointed with a shared layer": Shape(checkpointed_sharing, plain=stored_whole),
    "checkpointed in part, partly fast": Shape(
        lambda: nn.Sequential(Checkpointed(chain()), linear()), fast=("0.part.0.0.*",), plain=stored_whole
    ),
    "checkpointed and parametrised": Shape(lambda: Checkpointed(symmetric()), plain=stored_whole),
    "checkpointed recurrent layer": Shape(lambda: Checkpointed(nn.GRU(WIDTH, WIDTH)), plain=stored_whole, **SEQUENCE),
    "checkpoint_sequential": Shape(in_segments, plain=stored_whole),
}


def written_buffers() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            self.count += 1
        return self.layer(x - self.mean.clone()) * (1 + 0.1 * self.count)

    return Own(run, layer=linear(), mean=torch.zeros(WIDTH), count=torch.zeros((), dtype=torch.long))


def read_value() -> nn.Module:
    return Own(lambda self, x: self.layer(x) * self.scale.item(), layer=linear(), scale=torch.tensor(1.5))


def replaced_buffer() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x) - self.mean

    return Own(run, layer=linear(), mean=torch.zeros(WIDTH))


def shared_buffer() -> nn.Module:
    net = nn.Sequential(written_buffers(), nn.Tanh(), written_buffers())
    net[2].mean = net[0].mean
    return net


def with_hooks() -> nn.Module:
    net = chain()
    net[0].register_forward_hook(lambda module, inputs, output: output * module.weight.sum())
    net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + module.bias,))
    net.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    return net


MORE = {
    "dropout": Shape(lambda: chain(nn.Dropout(0.4))),
    "written buffers": Shape(written_buffers),
    "written buffers in eval mode": Shape(written_buffers, train=False),
    "written buffers in the mapping": Shape(written_buffers, mapped=True),
    "a replaced buffer": Shape(replaced_buffer),
    "a value read in forward": Shape(read_value, message="without data.*by hand", refused=AUTO),
    "a buffer of two modules": Shape(shared_buffer),
    "hooks": Shape(with_hooks),
    "compiled loss": Shape(chain, compiled=True),
    "compiled loss, one layer thrice": Shape(one_layer_thrice, compiled=True),
}
