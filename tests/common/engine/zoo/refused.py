"""Wrapped and unusual networks, most of which are refused."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from common.engine.settings import Unroll
from tests.common.engine.zoo.layers import batch_norm, encoder_layer, gpt2
from tests.common.engine.zoo.shape import (
    EVERY,
    SECOND,
    WIDTH,
    WORDS,
    Checkpointed,
    Own,
    Shape,
    chain,
    floats,
    linear,
    number,
    stored_whole,
    tokens,
)


def in_parallel(devices: int = 0) -> nn.Module:
    net = nn.DataParallel(chain())
    net.device_ids = list(range(devices))
    return net


def complex_weight() -> nn.Module:
    return Own(lambda self, x: (x * self.w).abs(), w=nn.Parameter(torch.randn(WIDTH, dtype=torch.complex128)))


def integer_weight() -> nn.Module:
    count = nn.Parameter(torch.ones((), dtype=torch.long), requires_grad=False)
    return Own(lambda self, x: self.layer(x) * self.count, layer=linear(), count=count)


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(linear()), nn.Tanh(), linear())


def one_head() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(self.query(x)[:, None], x[:, None], x[:, None])

    return Own(run, query=linear())


def selectively() -> nn.Module:
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])

    def run(self: Any, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False, context_fn=contexts) if self.on else self.body(x)

    net = Own(run, body=chain())
    net.on = True
    return net


def traced() -> nn.Module:
    return nn.Sequential(torch.jit.trace(linear(), torch.ones(1, WIDTH)), nn.Tanh(), linear())


REFUSED = {
    "checkpointed, reentrant": Shape(
        lambda: Checkpointed(chain(), reentrant=True), message="use_reentrant=False", refused=EVERY
    ),
    "GPT-2, checkpointed, reentrant": Shape(
        partial(gpt2, True), tokens(2, 3), read=lambda output: output.logits,
        message="use_reentrant.*False", refused=EVERY,
    ),
    "torch.compile": Shape(
        lambda: torch.compile(chain(), backend="eager"), plain=lambda net: net._orig_mod
    ),
    "torch.compile of a part": Shape(
        lambda: nn.Sequential(linear(), torch.compile(linear(), backend="eager")),
        plain=lambda net: nn.Sequential(net[0], net[1]._orig_mod),
    ),
    "DataParallel": Shape(in_parallel, plain=lambda net: net.module),
    "DataParallel, on two devices": Shape(partial(in_parallel, 2), message=r"its \.module", refused=EVERY),
    "scripted": Shape(scripted, message="scripted", refused=EVERY),
    "traced by torch.jit": Shape(traced, message="scripted", refused=EVERY),
    "scripted in part, not fast": Shape(scripted, fast=("2.*",)),
    "complex weight": Shape(complex_weight, message="w is complex.*view_as_real", refused=EVERY),
    "integer weight": Shape(integer_weight, message=r"count has type torch\.int64.*inner\.weights", refused=EVERY),
    "sparse embedding": Shape(
        lambda: nn.Sequential(nn.Embedding(WORDS, WIDTH, sparse=True), linear()), tokens(2, 3),
        message="sparse=False", refused=EVERY,
    ),
    "attention by torch's kernel": Shape(one_head, floats(2, 3, WIDTH)),
    "distances": Shape(
        lambda: Own(lambda self, x: torch.cdist(self.layer(x), self.points), layer=linear(), points=number(2, WIDTH)),
        message="uses _?cdist, which has no second derivative", refused=SECOND,
    ),
    "selective checkpointing": Shape(
        selectively, plain=stored_whole, message="selective.*one backward pass", refused=SECOND,
    ),
    "EmbeddingBag": Shape(
        lambda: nn.Sequential(nn.EmbeddingBag(WORDS, WIDTH), nn.Tanh(), linear()), tokens(2, 3),
        message="second derivative", refused=SECOND,
    ),
    "TransformerEncoderLayer": Shape(encoder_layer, floats(2, 3, WIDTH)),
    "TransformerEncoderLayer in eval mode": Shape(encoder_layer, floats(2, 3, WIDTH), train=False),
    "no fast weight reached": Shape(
        lambda: Own(lambda self, x: self.layer(x), layer=linear(), idle=number(WIDTH)), fast=("idle",),
        message="reaches none of the fast weights", refused=EVERY,
    ),
    "compiled loss, batch norm": Shape(
        batch_norm, compiled=True, message="inner.compile=true", refused=EVERY - {Unroll.stored}
    ),
}  # fmt: skip
