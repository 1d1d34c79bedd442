"""The two cosines against numbers on paper, and that nothing of the comparison stays."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from common.engine.conditioning import Conditioning, conditioning
from common.engine.inner import adapt
from common.engine.rules import AdamW


class Cancelling(nn.Module):
    """Its gradient is (far + near) - far, which float32 rounds to multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.idle = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("far", torch.tensor(1e8))
        self.register_buffer("near", torch.tensor([3.0, 5.0]))
        self.register_buffer("count", torch.tensor(7))

    def losses(self) -> Iterator[Tensor]:
        self.count += 1
        yield (self.w * ((self.far + self.near) - self.far)).sum()


def test_the_cosine_to_float64_is_that_of_the_rounded_gradient() -> None:
    module = Cancelling()
    found = conditioning(module.losses, {module.w: 0.1}, [module])
    assert found.cosine == pytest.approx(40 / (8 * math.sqrt(34)), rel=1e-12) and not found.sound
    assert found.metasmoothness == 1.0


def test_metasmoothness_is_the_cosine_one_outer_step_away() -> None:
    """The loss is w^2 / 2 in two shares, so the gradient is w; each group of weights takes its own rate."""
    w, rate = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0]))
    module = nn.ParameterList([w, rate])
    found = conditioning(lambda: (x.square().sum() / 2 for x in (w, rate)), {w: 0.5, rate: 4.0}, [module])
    before, after = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, -1.5, -1.0])
    assert found.metasmoothness == pytest.approx(torch.cosine_similarity(before, after, dim=0).item())
    assert found.cosine == pytest.approx(1.0) and found.sound


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_nothing_stays_even_if_a_loss_raises(fails: int) -> None:
    module, calls = Cancelling(), 0
    tensors = [*module.parameters(), *module.buffers()]
    before = [(x.data_ptr(), x.dtype, x.clone()) for x in tensors]

    def losses() -> Iterator[Tensor]:
        nonlocal calls
        calls += 1
        if calls == fails:
            raise ZeroDivisionError
        return module.losses()

    try:
        conditioning(losses, {module.w: 0.1}, [module, module])
    except ZeroDivisionError:
        assert fails
    assert all(a is b for a, b in zip(tensors, [*module.parameters(), *module.buffers()], strict=True))
    assert all(x.grad is None for x in tensors)
    for x, (place, dtype, value) in zip(tensors, before, strict=True):
        assert x.data_ptr() == place and x.dtype is dtype and torch.equal(x, value)


def test_zero_and_infinite_gradients_have_an_answer() -> None:
    w = nn.Parameter(torch.tensor([1.0]))
    module = nn.ParameterList([w])
    assert conditioning(lambda: [0 * w.sum()], {w: 0.1}, [module]) == Conditioning(1.0, 1.0)
    found = conditioning(lambda: [(w * math.inf).sum()], {w: 0.1}, [module])
    assert math.isnan(found.cosine) and not found.sound
    rounded = Cancelling()
    rounded.near.fill_(3.0)
    found = conditioning(rounded.losses, {rounded.w: 0.1}, [rounded])
    assert found == Conditioning(0.0, 1.0), "float32 has no gradient where float64 has one"


@pytest.mark.parametrize(
    ("rule", "sound"), [(AdamW(eps=1e-8), False), (AdamW(eps=1e-4), True), (AdamW(floor=0.1), True)]
)
def test_what_makes_an_outer_gradient_sound(rule: AdamW, sound: bool) -> None:
    """Inner gradients 3 w - b of which float32 leaves rounding, as of keys' biases: there AdamW's slope is 1 / eps."""
    w = nn.Parameter(torch.tensor([0.1, 0.7, 0.3, 1.0]))
    module = nn.ParameterList([w])

    def losses() -> Iterator[Tensor]:
        start = {"fast": torch.ones_like(w).requires_grad_()}
        inner = lambda fast, _: (fast["fast"] * (3 * w - torch.tensor([0.3, 2.1, 0.9, 2.0]).to(w))).sum()  # noqa: E731
        yield adapt(inner, start, steps=1, rule=rule, rates=0.01).weights["fast"].sum()

    assert conditioning(losses, {w: 1e-3}, [module]).sound is sound
