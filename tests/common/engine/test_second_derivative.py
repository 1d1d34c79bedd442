"""A network that cannot be differentiated twice is refused at once, by those who need it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine.settings import Unroll
from common.errors import UserError
from common.language.model import LanguageModel, check_second_derivative


class _Network(nn.Module):
    """Its fused attention has a first derivative alone."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.embedding, self.fused = nn.Embedding(4, 3), fused

    def get_output_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        x = self.embedding(input_ids)
        if self.fused:
            x = F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)[0]
        return SimpleNamespace(logits=x.square())


def test_an_operation_without_second_derivative_is_found() -> None:
    check_second_derivative(LanguageModel(_Network(fused=False), 8, None))
    with pytest.raises(UserError, match=r"no second derivative .*inner.unroll=first_order"):
        check_second_derivative(LanguageModel(_Network(fused=True), 8, None))


def test_first_order_unrolls_need_none() -> None:
    assert {unroll for unroll in Unroll if not unroll.second_order} == {Unroll.first_order, Unroll.none}
