"""Lean activations and norms against the ones they replace, to the second derivative, and what they keep."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from common.engine.twice import policy
from common.engine.twice.activation import GELU, SiLU
from common.engine.twice.norm import LayerNorm, RMSNorm
from common.engine.twice.policy import Need, needing

WIDTH = 6


@pytest.fixture(autouse=True)
def every_tensor_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SMALL", 0)


class PlainRMSNorm(nn.Module):
    """What `transformers` writes, without its cast to float32."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + self.eps))


def layer_norm(kind: type[nn.LayerNorm]) -> nn.Module:
    norm = kind(WIDTH, eps=0.1, dtype=torch.float64)
    for parameter, start in ((norm.weight, 0.5), (norm.bias, -1.0)):
        parameter.data = torch.linspace(start, 2, WIDTH, dtype=torch.float64)
    return norm


def rms_weight() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-0.5, 2, WIDTH, dtype=torch.float64))


PAIRS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "gelu": lambda: (GELU(), nn.GELU()),
    "gelu_tanh": lambda: (GELU("tanh"), nn.GELU("tanh")),
    "silu": lambda: (SiLU(), nn.SiLU()),
    "layer_norm": lambda: (layer_norm(LayerNorm), layer_norm(nn.LayerNorm)),
    "rms_norm": lambda: (RMSNorm(rms_weight(), 0.1), PlainRMSNorm(rms_weight(), 0.1)),
}
ACTIVATIONS = ["gelu", "gelu_tanh", "silu"]


def sample(dtype: torch.dtype = torch.float64) -> Tensor:
    """[2, 5, width], tails included"""
    return (3 * torch.randn(2, 5, WIDTH, dtype=torch.float64)).to(dtype).requires_grad_()


def derivatives(module: nn.Module, x: Tensor, cotangent: Tensor) -> list[Tensor]:
    """Value, gradients, and the gradients of a fixed function of those, also for the cotangent."""
    variables = [x, *(p for p in module.parameters() if p.requires_grad)]
    value = module(x)
    first = torch.autograd.grad(value, variables, cotangent, create_graph=True)
    outer = sum((g * g.detach().cos()).sum() for g in first)
    second = torch.autograd.grad(outer, [*variables, cotangent], allow_unused=True, materialize_grads=True)
    return [value, *first, *second]


@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_original_to_the_second_derivative(name: str) -> None:
    lean, original = PAIRS[name]()
    x, cotangent = sample(), sample()
    torch.testing.assert_close(
        derivatives(lean, x, cotangent), derivatives(original, x, cotangent), rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_frozen_norm_passes_the_same_gradients(name: str) -> None:
    lean, original = (module.requires_grad_(False) for module in PAIRS[name]())
    x, cotangent = sample(), sample()
    torch.testing.assert_close(
        derivatives(lean, x, cotangent), derivatives(original, x, cotangent), rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_only_the_weight_of_a_norm_is_differentiated_again(name: str) -> None:
    x, found = sample(), []
    for module in PAIRS[name]():
        (first,) = torch.autograd.grad(module(x).square().sum(), [module.weight], create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [x, module.weight]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", PAIRS)
def test_derivatives_against_differences(name: str) -> None:
    lean, _ = PAIRS[name]()
    names = [name for name, _ in lean.named_parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(lean, dict(zip(names, parameters, strict=True)), (x,))

    inputs = (torch.randn(3, WIDTH, dtype=torch.float64).requires_grad_(), *lean.parameters())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_tails_stay_finite(name: str) -> None:
    lean, original = PAIRS[name]()
    x = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    found = derivatives(lean, x, torch.ones(5, requires_grad=True))
    assert all(value.isfinite().all() for value in found)
    torch.testing.assert_close(found[:2], derivatives(original, x, torch.ones(5, requires_grad=True))[:2])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bfloat16_is_rounded_once(name: str) -> None:
    lean, _ = PAIRS[name]()
    x, cotangent = sample(torch.bfloat16), sample(torch.bfloat16)
    wide = [t.detach().float().requires_grad_() for t in (x, cotangent)]
    for got, exact in zip(derivatives(lean, x, cotangent), derivatives(lean, *wide), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_norm_in_half_precision_runs_the_operators_of_torch(name: str) -> None:
    lean, original = (module.to(torch.bfloat16) for module in PAIRS[name]())
    x = sample(torch.bfloat16)
    assert "_Norm" not in type(lean(x).grad_fn).__name__
    torch.testing.assert_close(lean(x), original(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", PAIRS)
def test_only_the_input_and_the_cotangent_are_kept(name: str) -> None:
    lean, _ = PAIRS[name]()
    x, cotangent = sample(), sample()
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.autograd.grad(lean(x), [x, *lean.parameters()], cotangent, create_graph=True)
    assert {t.data_ptr() for t in kept if t.shape == x.shape} == {x.data_ptr(), cotangent.data_ptr()}


@pytest.mark.parametrize("name", PAIRS)
def test_a_third_derivative_raises_except_under_plain_need(name: str) -> None:
    lean, _ = PAIRS[name]()
    x = sample()
    (first,) = torch.autograd.grad(lean(x).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="no further derivative here"):
        torch.autograd.grad(first.square().sum(), [x], create_graph=True)
    with needing(Need.plain):
        (first,) = torch.autograd.grad(lean(x).sum(), [x], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), [x], create_graph=True)
    assert torch.autograd.grad(second.square().sum(), [x])[0].isfinite().all()


@pytest.mark.parametrize("name", PAIRS)
def test_transforms_and_small_tensors_take_the_composite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lean, original = PAIRS[name]()
    x = sample()
    torch.testing.assert_close(torch.func.vmap(lean)(x), original(x))
    torch.testing.assert_close(
        torch.func.grad(lambda x: lean(x).square().sum())(x), torch.func.grad(lambda x: original(x).square().sum())(x)
    )
    lean_node = type(lean(x).grad_fn).__name__
    monkeypatch.setattr(policy, "SMALL", x.numel() + 1)
    assert ("_Value" in lean_node or "_Norm" in lean_node) and type(lean(x).grad_fn).__name__ != lean_node


def test_an_unknown_approximation_is_refused() -> None:
    with pytest.raises(ValueError, match="approximate='erf': use 'none' or 'tanh'"):
        GELU("erf")


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_norm_of_what_learns_nothing_has_its_second_derivative_too(name: str) -> None:
    """As the first norm above frozen embeddings has."""
    found = []
    x = sample().detach()
    for module in PAIRS[name]():
        weight = module.weight
        (first,) = torch.autograd.grad(module(x).pow(3).sum(), weight, create_graph=True)
        found.append(torch.autograd.grad(first.pow(2).sum(), weight)[0])
    torch.testing.assert_close(*found)
