"""What a network of the zoo is, and the parts that they are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.engine.settings import Unroll

WIDTH, ROWS, WORDS = 4, 3, 7
Draw = Callable[[Generator], tuple[Any, ...]]
EVERY = frozenset(Unroll)
SECOND = frozenset({Unroll.stored, Unroll.recompute, Unroll.auto, Unroll.truncate, Unroll.tgu})
AUTO = frozenset({Unroll.auto})


def floats(*shape: int) -> Draw:
    """Data of this shape."""
    return lambda generator: (torch.randn(*shape, generator=generator),)


def tokens(*shape: int) -> Draw:
    """Indices of words, in this shape."""
    return lambda generator: (torch.randint(WORDS, shape, generator=generator),)


@dataclass(frozen=True)
class Shape:
    """A network, what it is called with, and what `adapt` does with it."""

    make: Callable[[], nn.Module]
    draw: Draw = floats(ROWS, WIDTH)
    fast: tuple[str, ...] = ("*",)
    """Patterns of the fast weights."""
    read: Callable[[Any], Tensor] = lambda output: output
    """The tensor among what the network returns."""
    plain: Callable[[nn.Module], nn.Module] = lambda net: net
    """The same function without activation checkpointing, or what stands around the network."""
    train: bool = True
    mapped: bool = False
    """The buffers are given in the mapping, beside the fast weights."""
    compiled: bool = False
    """The inner loss is a `common.engine.compiled.Compiled`."""
    message: str = ""
    """Of the refusal."""
    refused: frozenset[Unroll] = frozenset()
    """Unrolls that end in one message; all others give right values."""

    def build(self) -> nn.Module:
        """A network, the same at every call."""
        torch.manual_seed(0)
        return self.make().train(self.train)

    def data(self, step: int) -> tuple[Any, ...]:
        """Of inner step `step`; other data for each."""
        return self.draw(Generator().manual_seed(step))


class Own(nn.Module):
    """`run(self, *inputs)`, with parts under their names; a tensor that is no parameter is a buffer."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


class Checkpointed(nn.Module):
    """Its part is run again in the backward pass, while `on`."""

    def __init__(self, *parts: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.part = nn.Sequential(*parts)
        self.on, self.reentrant = True, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant) if self.on else self.part(x)


def stored_whole(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if hasattr(module, "on"):
            module.on = False
    return net


def same(net: nn.Module, other: nn.Module) -> nn.Module:
    """`other`, with the values of `net`."""
    other.load_state_dict(net.state_dict())
    return other


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def number(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def chain(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(linear(), *middle, nn.Tanh(), linear())


def in_turn(*names: str) -> Callable[..., Tensor]:
    """The parts of these names, dotted, one after the other."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        for name in names:
            x = torch.tanh(self.get_submodule(name)(x))
        return x

    return run
