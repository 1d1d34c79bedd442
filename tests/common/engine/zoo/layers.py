"""Recurrent, convolutional and normalising layers, embeddings and transformers."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.twice.lean import make_lean
from tests.common.engine.zoo.shape import WIDTH, WORDS, Own, Shape, chain, floats, in_turn, linear, tokens


def cell() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), WIDTH)
        for _ in range(2):
            h, c = self.lstm(x, (h, c))
            h = self.gru(x, h)
        return h

    return Own(run, lstm=nn.LSTMCell(WIDTH, WIDTH), gru=nn.GRUCell(WIDTH, WIDTH))


def shared_recurrent() -> nn.Module:
    net = Own(lambda self, x: self.b(self.a(x)[0])[0], a=nn.GRU(WIDTH, WIDTH))
    net.b = net.a
    return net


SEQUENCE = {"draw": floats(3, 2, WIDTH), "read": lambda output: output[0]}
RECURRENT = {
    "LSTM": Shape(lambda: nn.LSTM(WIDTH, WIDTH), **SEQUENCE),
    "LSTM of two layers, both ways": Shape(
        lambda: nn.LSTM(WIDTH, WIDTH, 2, bidirectional=True, proj_size=2, dropout=0.3), **SEQUENCE
    ),
    "GRU": Shape(lambda: nn.GRU(WIDTH, WIDTH), **SEQUENCE),
    "RNN": Shape(lambda: nn.RNN(WIDTH, WIDTH), **SEQUENCE),
    "a recurrent layer under two names": Shape(shared_recurrent, floats(3, 2, WIDTH)),
    "LSTMCell and GRUCell": Shape(cell),
}
CONVOLUTIONAL = {
    "Conv1d": Shape(lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 2, 1)), floats(2, 2, 5)),
    "Conv2d": Shape(lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.Tanh(), nn.MaxPool2d(2)), floats(2, 2, 4, 4)),
    "Conv3d": Shape(lambda: nn.Sequential(nn.Conv3d(1, 4, 2), nn.Tanh()), floats(2, 1, 3, 3, 3)),
    "ConvTranspose1d": Shape(lambda: nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.Tanh()), floats(2, 2, 4)),
    "ConvTranspose2d": Shape(lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 2), nn.Tanh()), floats(2, 2, 3, 3)),
}


def batch_norm() -> nn.Module:
    return chain(nn.BatchNorm1d(WIDTH))


def grouped(norm: nn.Module) -> nn.Module:
    return chain(nn.Unflatten(1, (2, 2)), norm, nn.Flatten())


NORMALISED = {
    "batch norm": Shape(batch_norm),
    "batch norm in eval mode": Shape(batch_norm, train=False),
    "batch norm, buffers in the mapping": Shape(batch_norm, mapped=True),
    "batch norm in eval mode, buffers in the mapping": Shape(batch_norm, train=False, mapped=True),
    "batch norm under two names": Shape(
        lambda: Own(in_turn("a", "n.0", "b", "n.1"), a=linear(), b=linear(), n=nn.ModuleList([nn.BatchNorm1d(4)] * 2))
    ),
    "group norm": Shape(lambda: chain(nn.GroupNorm(2, WIDTH))),
    "layer norm": Shape(lambda: chain(nn.LayerNorm(WIDTH))),
    "instance norm": Shape(lambda: grouped(nn.InstanceNorm1d(2, affine=True, track_running_stats=True))),
    "RMS norm": Shape(lambda: chain(nn.RMSNorm(WIDTH))),
    "lean": Shape(lambda: make_lean(chain(nn.LayerNorm(WIDTH), nn.GELU(), linear()))),
}

# Embeddings and transformers


def tied_embedding() -> nn.Module:
    net = Own(
        lambda self, x: self.head(torch.tanh(self.embed(x))),
        embed=nn.Embedding(WORDS, WIDTH), head=nn.Linear(WIDTH, WORDS, bias=False),
    )  # fmt: skip
    net.head.weight = net.embed.weight
    return net


def gpt2(reentrant: bool | None = None, dropout: float = 0.0) -> nn.Module:
    """With activation checkpointing unless `reentrant` is None."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shares = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    config = GPT2Config(
        vocab_size=WORDS, n_positions=4, n_embd=4, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        attn_implementation="eager", use_cache=False, **shares,
    )  # fmt: skip
    net = GPT2LMHeadModel(config)
    if reentrant is not None:
        net.gradient_checkpointing_enable({"use_reentrant": reentrant})
    return net


def without_checkpointing(net: Any) -> nn.Module:
    net.gradient_checkpointing_disable()
    return net


def attention() -> nn.Module:
    return Own(lambda self, x: self.of(x, x, x)[0], of=nn.MultiheadAttention(WIDTH, 2, batch_first=True))


def encoder_layer(dropout: float = 0.0) -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, dim_feedforward=5, dropout=dropout, batch_first=True)


LANGUAGE = {
    "Embedding": Shape(lambda: nn.Sequential(nn.Embedding(WORDS, WIDTH), nn.Tanh(), linear()), tokens(2, 3)),
    "tied embedding": Shape(tied_embedding, tokens(2, 3)),
    "MultiheadAttention": Shape(attention, floats(2, 3, WIDTH)),
    "TransformerEncoderLayer with dropout": Shape(partial(encoder_layer, 0.2), floats(2, 3, WIDTH)),
    "GPT-2": Shape(gpt2, tokens(2, 3), read=lambda output: output.logits),
    "GPT-2, checkpointed": Shape(
        partial(gpt2, False, 0.1), tokens(2, 3), read=lambda output: output.logits, plain=without_checkpointing
    ),
}
