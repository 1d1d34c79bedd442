"""The pieces of `common.engine.twice` for a network that was built without them."""

from functools import cache
from importlib import import_module

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.func import functional_call

from common.engine.twice.activation import GELU, SiLU
from common.engine.twice.linear import Linear, affine, spares
from common.engine.twice.norm import LayerNorm, RMSNorm

_GELU_OF_TRANSFORMERS: dict[str, str] = {
    "GELUActivation": "none",
    **dict.fromkeys(("NewGELUActivation", "GELUTanh", "FastGELUActivation", "AccurateGELUActivation"), "tanh"),
}
"""Classes of `transformers.activations` by name: importing it takes seconds."""


def make_lean(network: nn.Module) -> nn.Module:
    """Make every GELU, SiLU, layer norm, RMS norm and linear layer of `network` a lean one, in place; returns it.

    The function stays the same to rounding; modules, parameters (the very tensors), their names and hooks stay as they
    are, as a module's class alone is exchanged. What the network calls as a function is left alone, and so is what only
    looks alike (QuickGELU, Gemma's norm, a subclass with a forward pass of its own).

    The network can be copied and pickled, and whoever reads it needs this package; `state_dict` and `save_pretrained`
    are those of the plain network.
    """
    for module in network.modules():
        if (lean := _activation(module) or _norm(module)) is not None:
            module.__class__ = type(lean)
            own = {name: value for name, value in vars(lean).items() if name in ("approximate", "eps")}
            vars(module).update(own)
        elif (kind := _linear(module)) is not None:
            module.__class__ = kind
    return network


def _linear(module: nn.Module) -> type[nn.Module] | None:
    """The class to give a linear layer, None if it is none."""
    if type(module) is nn.Linear:
        return Linear
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        return _conv1d(type(module))  # type: ignore[arg-type]  # a class can be hashed
    return None


@cache
def _conv1d(kind: type[nn.Module]) -> type[nn.Module]:
    """GPT-2's linear layer, whose weight is [in, out]; a subclass of it, as `peft` looks at classes."""

    class Conv1D(kind):  # type: ignore[misc,valid-type]
        def forward(self, x: Tensor) -> Tensor:
            return affine(x, self.weight, self.bias) if spares(x, self.weight) else super().forward(x)

    Conv1D.__qualname__ = Conv1D.__name__  # where pickle looks for it
    return Conv1D


def __getattr__(name: str) -> type[nn.Module]:
    """`Conv1D`, when a pickled network asks for it; whoever has one has `transformers`, which is slow to import."""
    if name != "Conv1D":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _conv1d(import_module("transformers.pytorch_utils").Conv1D)


def _activation(module: nn.Module) -> nn.Module | None:
    """The activation to make of `module`, None if it is none."""
    name = type(module).__name__ if type(module).__module__ == "transformers.activations" else ""
    if type(module).forward is nn.SiLU.forward or name == "SiLUActivation":
        return SiLU()
    plain = type(module).forward is nn.GELU.forward
    approximate = module.approximate if plain else _GELU_OF_TRANSFORMERS.get(name)
    return None if approximate is None else GELU(str(approximate))


def _norm(module: nn.Module) -> nn.Module | None:
    """The norm to make of `module`, None if it is none."""
    if type(module) is nn.LayerNorm and module.bias is not None and module.weight.dim() == 1:
        return LayerNorm(module.normalized_shape, module.eps, device="meta")
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if type(module).__name__.endswith("RMSNorm") and isinstance(weight, nn.Parameter) and isinstance(eps, float):
        found = RMSNorm(weight, eps)
        return found if _same(module, found, weight) else None
    return None


@torch.no_grad()
def _same(original: nn.Module, lean: nn.Module, weight: Tensor) -> bool:
    """Whether the two agree, on a row of ordinary size and on one where eps counts; `weight` may be without data."""
    with unset_fake_temporarily():
        row = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)
        rows, gain = torch.stack([row, row * 1e-3]), {"weight": row + 2}
        found, wanted = (functional_call(norm, gain, (rows,)) for norm in (lean, original))
        return torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
