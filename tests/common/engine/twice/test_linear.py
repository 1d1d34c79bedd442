"""The linear layer that is leaner under `Need.curvature` against torch's own: Hessian products and what they cost."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.engine.derivatives import product
from common.engine.twice.lean import make_lean
from common.engine.twice.linear import Linear
from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights, call, select

WIDTH, ROWS = 6, 5


def chain(layers: int = 2, bias: bool = True, kind: type[nn.Module] = nn.Linear, width: int = WIDTH) -> nn.Sequential:
    """Linear layers with a curve between them, in float64."""
    made = [kind(width, width) if kind is not nn.Linear else nn.Linear(width, width, bias=bias) for _ in range(layers)]
    network = nn.Sequential(*(piece for layer in made for piece in (layer, nn.Tanh()))).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


def conv1d() -> type[nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def pairs(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(lean, as it was), with the same parameters."""
    plain = nn.Sequential(*network)
    lean = nn.Sequential(*(type(piece).__new__(type(piece)) for piece in network))
    for new, old in zip(lean, network, strict=True):
        new.__dict__ = dict(old.__dict__)
    return make_lean(lean), plain


def hessian_product(network: nn.Module, start: Weights, x: Tensor, also: list[Tensor]) -> list[Tensor]:
    """Of a loss that is not symmetric in the rows, with a fixed vector: by the weights and by `also`."""

    def loss(weights: Weights, part: Tensor) -> Tensor:
        value: Tensor = call(network, weights, part)
        return (value * torch.linspace(-1, 2, value.numel()).view_as(value)).sum() + value.pow(3).sum()

    torch.manual_seed(3)
    vector = [torch.randn_like(w) for w in start.values()]
    found, others = product(loss, start, x, vector, also)
    return [*found, *others]


def compare(network: nn.Module, patterns: list[str], x: Tensor, also: list[Tensor]) -> None:
    lean, plain = pairs(network)
    start = select(plain, patterns)
    expected = hessian_product(plain, start, x, also)
    assert all(value.ne(0).any() for value in expected)
    torch.testing.assert_close(hessian_product(lean, start, x, also), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (2, ROWS, WIDTH), (WIDTH,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("learning", [True, False], ids=["learning input", "frozen input"])
def test_a_hessian_vector_product_is_that_of_torchs_layer(shape: tuple[int, ...], bias: bool, learning: bool) -> None:
    x = torch.randn(*shape, dtype=torch.double, requires_grad=learning)
    compare(chain(bias=bias), ["*"], x, [x] if learning else [])


@pytest.mark.parametrize("fast", ["0.weight", "2.weight", "0.bias", "2.bias"])
@pytest.mark.parametrize("others", ["frozen", "learning"])
def test_it_is_where_one_tensor_is_fast_and_the_others_are_frozen_or_learn(fast: str, others: str) -> None:
    network, x = chain(), torch.randn(ROWS, WIDTH, dtype=torch.double)
    also = [parameter for name, parameter in network.named_parameters() if name != fast]
    for parameter in also:
        parameter.requires_grad_(others == "learning")
    compare(network, [fast], x, also if others == "learning" else [])


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (2, ROWS, WIDTH)], ids=str)
def test_it_is_for_the_linear_layer_of_gpt2(shape: tuple[int, ...]) -> None:
    compare(chain(kind=conv1d()), ["*"], torch.randn(*shape, dtype=torch.double), [])


def test_it_is_where_the_weight_is_made_of_fast_ones() -> None:
    """W + B A is bent in B and A together: the gradient of the sum, which the lean layer leaves at 0, counts there."""
    lean, plain = pairs(chain(layers=1))
    start = {name: torch.randn(shape, dtype=torch.double) for name, shape in (("b", (WIDTH, 2)), ("a", (2, WIDTH)))}
    x = torch.randn(ROWS, WIDTH, dtype=torch.double)

    def of(network: nn.Module) -> Callable[[Weights, Tensor], Tensor]:
        weight = network.get_parameter("0.weight").detach()
        return lambda w, part: call(network, {"0.weight": weight + w["b"] @ w["a"]}, part).pow(2).sum()

    plain.requires_grad_(False)
    vector = [torch.randn_like(w) for w in start.values()]
    expected, found = (product(of(network), start, x, vector, [])[0] for network in (plain, lean))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("need", [Need.first, Need.second, Need.plain])
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_it_is_torchs_layer_where_more_than_curvature_is_wanted(kind: str, need: Need) -> None:
    lean, plain = pairs(chain(layers=1, kind=nn.Linear if kind == "Linear" else conv1d()))
    x = torch.randn(ROWS, WIDTH, dtype=torch.double, requires_grad=True)
    found = []
    for network in (lean, plain):
        with needing(need):
            value = network[0](x)
        assert "_Affine" not in type(value.grad_fn).__name__
        found.append([value, *torch.autograd.grad(value.pow(3).sum(), [x, *network.parameters()], create_graph=True)])
    assert all(map(torch.equal, *found))
    with needing(Need.curvature):
        assert "_Affine" in nodes(lean[0](x))


def nodes(value: Tensor) -> str:
    """Names of the last two nodes: the layer may end in a view."""
    last = value.grad_fn
    assert last is not None
    return " ".join(type(node).__name__ for node in (last, last.next_functions[0][0]))


def test_under_curvature_transforms_and_autocast_take_torchs_operators() -> None:
    lean, plain = pairs(chain())
    x = torch.randn(ROWS, WIDTH, dtype=torch.double)
    with needing(Need.curvature):
        torch.testing.assert_close(torch.func.vmap(lean)(x), plain(x))
        torch.testing.assert_close(*(torch.func.grad(lambda x, n=n: n(x).pow(2).sum())(x) for n in (lean, plain)))
        with torch.autocast("cpu", torch.bfloat16):
            assert lean.float()[0](x.float()).dtype == torch.bfloat16


def test_under_curvature_the_first_derivative_of_the_weight_has_the_right_shape_and_that_of_the_input_its_values() -> (
    None
):
    lean, plain = pairs(chain(layers=1))
    x = torch.randn(2, ROWS, WIDTH, dtype=torch.double, requires_grad=True)
    inputs = [x, *plain.parameters()]
    expected = torch.autograd.grad(plain(x).pow(2).sum(), inputs, create_graph=True)
    with needing(Need.curvature):
        value = lean(x).pow(2).sum()
    found = torch.autograd.grad(value, inputs, create_graph=True)
    assert [g.shape for g in found] == [g.shape for g in expected]
    torch.testing.assert_close([found[0], found[2]], [expected[0], expected[2]])
    assert found[1].eq(0).all() and found[1].untyped_storage().nbytes() == found[1].element_size()
    assert found[1].requires_grad


def test_a_third_derivative_raises() -> None:
    lean, _ = pairs(chain(layers=1))
    x = torch.randn(ROWS, WIDTH, dtype=torch.double)
    with needing(Need.curvature):
        value = lean(x).pow(2).sum()
    (first,) = torch.autograd.grad(value, [lean[0].weight], create_graph=True)
    with pytest.raises(RuntimeError, match="no further derivative here"):
        torch.autograd.grad(first.sum(), [lean[0].weight], create_graph=True)


def product_flops(into: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
    """Of the product that is added in place, which torch's counter leaves out."""
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("fast", ["all", "the last", "the first bias"])
def test_a_product_with_the_hessian_costs_what_counting_by_hand_gives(layers: int, fast: str) -> None:
    """Products of matrices, all of one size, for y = x W with y' the cotangent.

    A layer above the first: forward 1; first pass x' = y' W^T and W' = x^T y'; second pass two adjoints of each of
    these three: 9, and 8 where nobody makes the values of W'. The first layer's x asks for no gradient: forward, W' and
    the adjoints of y' and W: 4, and 3. A frozen weight has no W': forward, x' and the adjoints of y' and x: 4, or 1 if
    nothing below it learns. Where x learns, but is no fast weight, the first pass leaves out its x'; the lean layer
    cannot see that and makes it. A rebuilt step takes 3 more for the gradient that moves weights: 11 in place of 12.
    """
    width = 16
    network = chain(layers, kind=nn.Linear, width=width)
    x = torch.randn(ROWS, width, dtype=torch.double, requires_grad=fast == "the first bias")
    x = x.clone()  # the counter hooks the inputs of modules, and no leaf
    patterns = {"all": ["*"], "the last": [f"{2 * layers - 2}.*"], "the first bias": ["0.bias"]}[fast]
    start = select(network, patterns)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in start)
    one, above = 2 * ROWS * width * width, layers - 1
    by_hand = {
        "all": (above * 9 + 4, above * 8 + 3),
        "the last": (above + 4, above + 3),
        "the first bias": (above * 4 + 2, above * 4 + 3),
    }[fast]
    lean, plain = pairs(network)
    for kind, expected in zip((plain, lean), by_hand, strict=True):
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product_flops}) as counter:
            hessian_product(kind, start, x, [x] if x.requires_grad else [])
        assert counter.get_total_flops() == expected * one


def test_names_and_class_checks_of_a_lean_layer_are_those_of_torch() -> None:
    lean, plain = pairs(chain(kind=nn.Linear))
    assert isinstance(lean[0], Linear) and isinstance(lean[0], nn.Linear) and type(plain[0]) is nn.Linear
    lean, _ = pairs(chain(kind=conv1d()))
    assert isinstance(lean[0], conv1d()) and type(lean[0]) is not conv1d() and type(lean[0]) is type(lean[2])
