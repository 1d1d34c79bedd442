"""A network that cannot be differentiated twice is refused at once, by those who need it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.bilevel import Unroll
from common.errors import UserError
from common.language.model import LanguageModel, check_second_derivative


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class _Network(nn.Module):
    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.embedding, self.twice = nn.Embedding(4, 3), twice

    def get_output_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        x = self.embedding(input_ids)
        return SimpleNamespace(logits=x.square() if self.twice else _Square.apply(x))


def test_an_operation_without_second_derivative_is_found() -> None:
    check_second_derivative(LanguageModel(_Network(twice=True), 8, None))
    with pytest.raises(UserError, match=r"no second derivative .*inner.unroll=first_order"):
        check_second_derivative(LanguageModel(_Network(twice=False), 8, None))


def test_first_order_unrolls_need_none() -> None:
    assert {unroll for unroll in Unroll if not unroll.second_order} == {Unroll.first_order, Unroll.none}
