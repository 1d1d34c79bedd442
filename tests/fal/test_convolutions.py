"""An attack's own gradient of convolutions is autograd's, and is there where it is the faster one."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fal.convolutions import BACKWARD, input_gradient
from fal.programs import Programs


def case(channels: int, groups: int, **how: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(3, groups * channels, 9, 8, generator=draw, dtype=torch.float64)
    weight = torch.rand(groups * 2, channels, 3, 2, generator=draw, dtype=torch.float64)
    made = conv2d(x, weight, groups=groups, **how)
    return torch.rand(made.shape, generator=draw, dtype=torch.float64), x, weight


@pytest.mark.parametrize(
    "how", [{}, {"stride": 2, "padding": 1}, {"stride": 3}, {"dilation": 2, "padding": 2}], ids=str
)
@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_products_and_a_fold_are_the_gradient(how: dict[str, int], groups: int, channels: int) -> None:
    gradient, x, weight = case(channels, groups, **how)
    each = [[how.get(key, least)] * 2 for key, least in (("stride", 1), ("padding", 0), ("dilation", 1))]
    rest = (None, *each, False, [0, 0], groups, [True, False, False])
    found = input_gradient(gradient, x, weight, *rest)[0]
    torch.testing.assert_close(found, BACKWARD(gradient, x, weight, *rest)[0], rtol=0, atol=1e-12)


def test_many_channels_and_gradients_by_weights_are_left_to_torch() -> None:
    for channels, wanted in ((5, [True, False, False]), (1, [True, True, False]), (1, [False, True, False])):
        gradient, x, weight = case(channels, 2)
        rest = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2, wanted)
        assert input_gradient(gradient, x, weight, *rest) is NotImplemented


def test_a_program_has_it_in_place_of_torchs() -> None:
    gradient, x, weight = case(1, 2)

    def by_input(x: Tensor, weight: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            return torch.autograd.grad(conv2d(at, weight, groups=2), at, gradient)[0]

    program = Programs().of("by input", by_input, x, weight)
    names = {node.name for node in program.__self__.graph.nodes}  # type: ignore[attr-defined]
    assert "col2im" in names and "convolution_backward" not in names
    torch.testing.assert_close(program(x, weight), by_input(x, weight), rtol=0, atol=1e-12)
