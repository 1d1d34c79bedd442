"""The pieces of `common.engine.twice` put into a network that was built without them."""

from functools import cache

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
    """Put lean modules in place of every GELU, SiLU, layer norm, RMS norm and linear layer of `network`; returns it.

    The function stays the same to rounding; parameters (the very tensors) and their names stay as they are. What the
    network calls as a function is left alone, and so is what only looks alike (QuickGELU, Gemma's norm).
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if (lean := _activation(child) or _norm(child)) is not None:
                setattr(parent, name, lean)
            elif (kind := _linear(child)) is not None:
                child.__class__ = kind
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

    return Conv1D


def _activation(module: nn.Module) -> nn.Module | None:
    """The activation to put in place of `module`, None if there is none."""
    name = type(module).__name__ if type(module).__module__ == "transformers.activations" else ""
    if isinstance(module, nn.SiLU) or name == "SiLUActivation":
        return SiLU()
    approximate = module.approximate if isinstance(module, nn.GELU) else _GELU_OF_TRANSFORMERS.get(name)
    return None if approximate is None else GELU(approximate)


def _norm(module: nn.Module) -> nn.Module | None:
    """The norm to put in place of `module` with its parameters, None if there is none."""
    if type(module) is nn.LayerNorm and module.bias is not None and module.weight.dim() == 1:
        lean = LayerNorm(module.normalized_shape, module.eps, device="meta")
        lean.weight, lean.bias = module.weight, module.bias
        return lean
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
