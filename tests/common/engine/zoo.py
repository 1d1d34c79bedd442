"""Networks of every make, tiny: which of them adapt, and which are refused.

SHAPES["tied weight"].build() is a network, SHAPES["tied weight"].data(step) what it is called with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as older_spectral_norm
from torch.nn.utils import weight_norm as older_weight_norm
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts

from common.engine.adapter import Adapter, layers
from common.engine.settings import Unroll
from common.engine.twice.lean import make_lean
from common.engine.weights import call

WIDTH, ROWS, WORDS = 4, 3, 7
Draw = Callable[[Generator], tuple[Any, ...]]
EVERY = frozenset(Unroll)
SECOND = frozenset({Unroll.stored, Unroll.recompute, Unroll.auto, Unroll.truncate, Unroll.tgu})
AUTO = frozenset({Unroll.auto})


def floats(*shape: int) -> Draw:
    """Data of this shape."""
    return lambda generator: (torch.randn(*shape, generator=generator),)


def tokens(*shape: int) -> Draw:
    """Indices of words, in this shape."""
    return lambda generator: (torch.randint(WORDS, shape, generator=generator),)


class Fault(NamedTuple):
    """Of the engine, known: what happens instead."""

    what: str
    raises: type[Exception] | tuple[type[Exception], ...]
    unrolls: frozenset[Unroll] = AUTO


@dataclass(frozen=True)
class Shape:
    """A network, what it is called with, and what `adapt` does with it."""

    make: Callable[[], nn.Module]
    draw: Draw = floats(ROWS, WIDTH)
    fast: tuple[str, ...] = ("*",)
    """Patterns of the fast weights."""
    read: Callable[[Any], Tensor] = lambda output: output
    """The tensor among what the network returns."""
    plain: Callable[[nn.Module], nn.Module] = lambda net: net
    """The same function without activation checkpointing, or what stands around the network."""
    train: bool = True
    mapped: bool = False
    """The buffers are given in the mapping, beside the fast weights."""
    compiled: bool = False
    """The inner loss is a `common.engine.compiled.Compiled`."""
    message: str = ""
    """Of the refusal."""
    refused: frozenset[Unroll] = frozenset()
    """Unrolls that end in one message; all others give right values."""
    fault: Fault | None = None

    def build(self) -> nn.Module:
        """A network, the same at every call."""
        torch.manual_seed(0)
        return self.make().train(self.train)

    def data(self, step: int) -> tuple[Any, ...]:
        """Of inner step `step`; other data for each."""
        return self.draw(Generator().manual_seed(step))


class Own(nn.Module):
    """`run(self, *inputs)`, with parts under their names; a tensor that is no parameter is a buffer."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


class Checkpointed(nn.Module):
    """Its part is run again in the backward pass, while `on`."""

    def __init__(self, *parts: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.part = nn.Sequential(*parts)
        self.on, self.reentrant = True, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant) if self.on else self.part(x)


def stored_whole(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if hasattr(module, "on"):
            module.on = False
    return net


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def number(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def chain(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(linear(), *middle, nn.Tanh(), linear())


def in_turn(*names: str) -> Callable[..., Tensor]:
    """The parts of these names, dotted, one after the other."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        for name in names:
            x = torch.tanh(self.get_submodule(name)(x))
        return x

    return run


# Sharing and tying


def one_layer_thrice() -> nn.Module:
    return Own(in_turn("layers.0", "layers.1", "layers.2"), layers=nn.ModuleList([linear()] * 3))


def two_names() -> nn.Module:
    net = Own(in_turn("enc", "enc2", "head"), enc=linear(), head=linear())
    net.enc2 = net.enc
    return net


def two_depths() -> nn.Module:
    layer = linear()
    return Own(in_turn("deep", "layer"), deep=nn.Sequential(nn.Sequential(linear(), layer), nn.Tanh()), layer=layer)


def tied_weight() -> nn.Module:
    net = Own(in_turn("encoder", "decoder"), encoder=linear(), decoder=linear())
    net.decoder.weight = net.encoder.weight
    return net


def tied_across_containers() -> nn.Module:
    by_name, in_order = nn.ModuleDict({"a": linear(), "b": linear()}), nn.ModuleList([linear(), linear()])
    in_order[1].weight, in_order[0].bias = by_name["a"].weight, by_name["b"].bias
    kept = nn.ParameterList([by_name["b"].weight])
    return Own(
        lambda self, x: in_turn("by_name.a", "in_order.0", "in_order.1", "by_name.b")(self, x) @ self.kept[0],
        by_name=by_name, in_order=in_order, kept=kept,
    )  # fmt: skip


def nested_sharing() -> nn.Module:
    layer = linear()
    block = nn.Sequential(layer, nn.Tanh(), nn.Sequential(linear(), layer))
    return Own(in_turn("blocks.0", "again", "blocks.1"), blocks=nn.ModuleList([block, block]), again=layer)


def one_parameter_of_two_modules() -> nn.Module:
    weight = number(WIDTH, WIDTH)
    first, second = (
        Own(lambda self, x: x @ self.left, left=weight),
        Own(lambda self, x: x @ self.right.T, right=weight),
    )
    return nn.Sequential(first, nn.Tanh(), second)


def tied_parametrised() -> nn.Module:
    net = tied_weight()
    for layer in (net.encoder, net.decoder):
        parametrize.register_parametrization(layer, "weight", Symmetric())
    net.decoder.parametrizations.weight.original = net.encoder.parametrizations.weight.original
    return net


SHARING = {
    "plain": Shape(chain),
    "one layer thrice": Shape(one_layer_thrice),
    "one layer thrice in a row": Shape(lambda: nn.Sequential(*[linear()] * 3)),
    "a layer under two names": Shape(two_names),
    "a layer at two depths": Shape(two_depths),
    "tied weight": Shape(tied_weight),
    "tied across containers": Shape(tied_across_containers),
    "nested sharing": Shape(nested_sharing),
    "one parameter of two modules": Shape(one_parameter_of_two_modules),
}

# Parameters


def with_list() -> nn.Module:
    weights = nn.ParameterList([number(WIDTH, WIDTH) for _ in range(3)])
    return Own(lambda self, x: torch.tanh(torch.tanh(x @ self.weights[0]) @ self.weights[2]), weights=weights)


def with_dict() -> nn.Module:
    weights = nn.ParameterDict({"in": number(WIDTH, WIDTH), "out": number(WIDTH)})
    return Own(lambda self, x: torch.tanh(x @ self.weights["in"]) * self.weights["out"], weights=weights)


def partly_frozen() -> nn.Module:
    net = chain()
    net[0].requires_grad_(False)
    return net


def with_penalty() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.body(x) + sum(w.square().sum() for w in self.parameters())

    return Own(run, body=chain())


def with_adapter() -> nn.Module:
    net = chain()
    return Adapter(net, target_modules=layers(net, ["0", "2"]), r=2, lora_alpha=4).network


PARAMETERS = {
    "ParameterList": Shape(with_list),
    "ParameterDict": Shape(with_dict),
    "scalar parameter": Shape(lambda: Own(lambda self, x: self.scale * self.layer(x), scale=number(), layer=linear())),
    "a parameter used twice": Shape(lambda: Own(lambda self, x: torch.tanh(x @ self.w) @ self.w.T, w=number(4, 4))),
    "a parameter unused": Shape(lambda: Own(lambda self, x: self.layer(x), layer=linear(), idle=number(WIDTH))),
    "partly fast": Shape(chain, fast=("2.*",)),
    "partly fast, shared": Shape(two_names, fast=("enc.weight", "head.bias")),
    "partly fast, the rest frozen": Shape(partly_frozen, fast=("2.*",)),
    "a loss that reads parameters()": Shape(with_penalty),
    "LoRA": Shape(with_adapter, fast=("*lora_*",)),
    "Bilinear and PReLU": Shape(
        lambda: Own(lambda self, x: self.b(self.p(x), x), b=nn.Bilinear(4, 4, 4), p=nn.PReLU())
    ),
}

# Parametrisations


class Symmetric(nn.Module):
    """Of a square matrix."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def symmetric() -> nn.Module:
    net = chain()
    parametrize.register_parametrization(net[0], "weight", Symmetric())
    return net


def cached() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        with parametrize.cached():
            return self.body(self.body(x))

    return Own(run, body=symmetric())


PARAMETRISED = {
    "parametrised": Shape(symmetric),
    "parametrised, cached in forward": Shape(cached),
    "parametrised, tied": Shape(tied_parametrised),
    "orthogonal": Shape(lambda: chain(parametrizations.orthogonal(linear()))),
    "weight norm": Shape(lambda: chain(parametrizations.weight_norm(linear()))),
    "older weight norm": Shape(lambda: chain(older_weight_norm(linear()))),
    "spectral norm": Shape(lambda: chain(parametrizations.spectral_norm(linear()))),
    "spectral norm in eval mode": Shape(lambda: chain(parametrizations.spectral_norm(linear())), train=False),
    "older spectral norm": Shape(lambda: chain(older_spectral_norm(linear()))),
}

# Recurrent, convolutional, normalised


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

# Checkpointing, random numbers, buffers, hooks


def nested_checkpoints() -> nn.Module:
    return Checkpointed(linear(), nn.Tanh(), Checkpointed(linear(), nn.Tanh()), linear())


def checkpointed_sharing() -> nn.Module:
    layer = linear()
    return nn.Sequential(Checkpointed(layer, nn.Tanh(), linear()), Checkpointed(nn.Tanh(), layer))


def in_segments() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return checkpoint_sequential(self.body, 2, x, use_reentrant=False) if self.on else self.body(x)

    net = Own(run, body=chain(linear()))
    net.on = True
    return net


CHECKPOINTED = {
    "checkpointed whole": Shape(lambda: Checkpointed(chain()), plain=stored_whole),
    "checkpointed layer by layer": Shape(
        lambda: nn.Sequential(*(Checkpointed(linear(), nn.Tanh()) for _ in range(3))), plain=stored_whole
    ),
    "checkpointed within a checkpoint": Shape(nested_checkpoints, plain=stored_whole),
    "checkpointed with dropout": Shape(lambda: Checkpointed(chain(nn.Dropout(0.4))), plain=stored_whole),
    "checkpointed with a shared layer": Shape(checkpointed_sharing, plain=stored_whole),
    "checkpointed in part, partly fast": Shape(
        lambda: nn.Sequential(Checkpointed(chain()), linear()), fast=("0.part.0.0.*",), plain=stored_whole
    ),
    "checkpointed and parametrised": Shape(lambda: Checkpointed(symmetric()), plain=stored_whole),
    "checkpointed recurrent layer": Shape(lambda: Checkpointed(nn.GRU(WIDTH, WIDTH)), plain=stored_whole, **SEQUENCE),
    "checkpoint_sequential": Shape(in_segments, plain=stored_whole),
}


def written_buffers() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            self.count += 1
        return self.layer(x - self.mean.clone()) * (1 + 0.1 * self.count)

    return Own(run, layer=linear(), mean=torch.zeros(WIDTH), count=torch.zeros((), dtype=torch.long))


def read_value() -> nn.Module:
    return Own(lambda self, x: self.layer(x) * self.scale.item(), layer=linear(), scale=torch.tensor(1.5))


def replaced_buffer() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x) - self.mean

    return Own(run, layer=linear(), mean=torch.zeros(WIDTH))


def shared_buffer() -> nn.Module:
    net = nn.Sequential(written_buffers(), nn.Tanh(), written_buffers())
    net[2].mean = net[0].mean
    return net


def with_hooks() -> nn.Module:
    net = chain()
    net[0].register_forward_hook(lambda module, inputs, output: output * module.weight.sum())
    net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + module.bias,))
    net.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    return net


MORE = {
    "dropout": Shape(lambda: chain(nn.Dropout(0.4))),
    "written buffers": Shape(written_buffers),
    "written buffers in eval mode": Shape(written_buffers, train=False),
    "written buffers in the mapping": Shape(written_buffers, mapped=True),
    "a replaced buffer": Shape(replaced_buffer),
    "a value read in forward": Shape(read_value, message="without data.*by hand", refused=AUTO),
    "a buffer of two modules": Shape(shared_buffer),
    "hooks": Shape(with_hooks),
    "compiled loss": Shape(chain, compiled=True),
    "compiled loss, one layer thrice": Shape(one_layer_thrice, compiled=True),
}

# A network within the network, and gradients, maps and other weights of its own


def inner_gradient() -> nn.Module:
    """Of an energy by its inputs."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.layer(x).tanh().square().sum(), x, create_graph=True)[0]

    return Own(run, layer=linear())


def mapped_rows() -> nn.Module:
    return Own(lambda self, x: torch.func.vmap(lambda row: torch.tanh(self.layer(row)))(x), layer=linear())


def other_weights() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        doubled = {name: 2 * w for name, w in self.both.named_parameters()}
        return torch.func.functional_call(self.both, doubled, (x,))

    return Own(run, both=two_names())


def hypernetwork() -> nn.Module:
    """Its layer is checkpointed, and has what another computes for weights."""

    def run(self: Any, x: Tensor) -> Tensor:
        return call(self.layer, {"part.0.weight": self.hyper(x.mean(0)).view(WIDTH, WIDTH)}, x)

    return Own(run, layer=Checkpointed(linear(), nn.Tanh()), hyper=nn.Linear(WIDTH, WIDTH * WIDTH))


def shared_storage() -> nn.Module:
    net = chain()
    net[2].weight = nn.Parameter(net[0].weight.data)
    return net


def pruned() -> nn.Module:
    net = chain()
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


def clamped() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.clamp_(-0.2, 0.2)
        return torch.tanh(self.layer(x))

    return Own(run, layer=linear())


WRITTEN = frozenset({Unroll.stored, Unroll.tgu, Unroll.first_order})
"""Unrolls whose first step is taken at the network's own tensors."""
WITHIN = {
    "a map over rows": Shape(mapped_rows),
    "functional_call of a part": Shape(other_weights),
    "a hypernetwork": Shape(hypernetwork, plain=stored_whole),
    "two parameters in one storage": Shape(shared_storage),
    "pruned": Shape(pruned),
    "an empty parameter": Shape(
        lambda: Own(lambda self, x: self.layer(x) + self.none.sum(), layer=linear(), none=number(0, WIDTH))
    ),
    "spectral norm, buffers in the mapping": Shape(
        lambda: chain(parametrizations.spectral_norm(linear())), mapped=True
    ),
    "gradient by the inputs": Shape(
        inner_gradient,
        fault=Fault(
            "a leaf that the loss makes is taken for a learner outside",
            ValueError, frozenset({Unroll.recompute, Unroll.auto}),
        ),
    ),
    "weights clamped in forward": Shape(
        clamped, message="rebuilt as another one", refused=frozenset({Unroll.recompute}),
        fault=Fault("the first step writes to the network's own parameter", AssertionError, WRITTEN),
    ),
    "Embedding with max_norm": Shape(
        lambda: nn.Sequential(nn.Embedding(WORDS, WIDTH, max_norm=0.5), nn.Tanh(), linear()), tokens(2, 3),
        message="max_norm=None", refused=EVERY,
    ),
    "cumulative batch norm, buffers in the mapping": Shape(
        lambda: chain(nn.BatchNorm1d(WIDTH, momentum=None)), mapped=True,
        message="without data.*by hand", refused=AUTO,
    ),
    "checkpointed batch norm": Shape(
        lambda: Checkpointed(batch_norm()), plain=stored_whole,
        fault=Fault("what a checkpoint runs again writes to buffers again", AssertionError, EVERY),
    ),
    "checkpointed spectral norm": Shape(
        lambda: Checkpointed(chain(parametrizations.spectral_norm(linear()))), plain=stored_whole,
        fault=Fault("what a checkpoint runs again moves the power iteration again", AssertionError, EVERY),
    ),
}  # fmt: skip

# Refused


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
        message="second derivative", refused=SECOND,
        fault=Fault("_cdist_backward has no derivative", NotImplementedError, SECOND - {Unroll.recompute, Unroll.auto}),
    ),
    "selective checkpointing": Shape(
        selectively, plain=stored_whole, message="selective", refused=SECOND,
        fault=Fault("raw error of a second backward pass", RuntimeError, SECOND),
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

SHAPES: dict[str, Shape] = {
    **SHARING, **PARAMETERS, **PARAMETRISED, **RECURRENT, **CONVOLUTIONAL, **NORMALISED, **LANGUAGE, **CHECKPOINTED,
    **MORE, **WITHIN, **REFUSED,
}  # fmt: skip
RIGHT = [name for name, shape in SHAPES.items() if not shape.refused and shape.fault is None]
