"""The network: loaded or built through the normal Hugging Face code, ready for second derivatives."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.engine.twice.lean import make_lean
from common.errors import UserError
from common.language import files, loading, probe
from common.language.adapter import Adapter
from common.language.attention import register
from common.language.config import ModelConfig
from common.language.sources import check_digest, first_line, source_of
from common.language.token_losses import TokenLosses

logger = logging.getLogger(__name__)
WINDOW = ("max_position_embeddings", "max_seq_len", "n_positions")
"""What configurations call the longest sequence; without any there is no limit."""


@dataclass
class LanguageModel:
    """A causal language model."""

    network: nn.Module
    """Called as `network(input_ids=...)`, answers with `.logits`; attention is twice differentiable."""
    window: int
    """Longest sequence it reads, in tokens."""
    adapter: Adapter | None = None
    """LoRA on a frozen network; None: the whole network learns."""
    autocast: bool = False
    """Its losses multiply matrices in bfloat16."""
    continues: int = sys.maxsize
    """Tokens of the longest rows that it can go on from by what it keeps of them; longer ones are read again for each
    new token."""
    losses: TokenLosses = field(init=False)
    """Next-token losses, in chunks where the vocabulary is large."""

    def __post_init__(self) -> None:
        self.losses = TokenLosses(self.network, autocast=self.autocast)

    @property
    def width(self) -> int:
        """Of the last hidden states."""
        network: Any = self.network
        return int(network.get_output_embeddings().weight.shape[1])

    @property
    def tracked(self) -> nn.Module | Adapter:
        """What a checkpoint keeps of it."""
        return self.adapter or self.network

    def files(self, folder: Path) -> Any:
        """What an export into `folder` writes of it."""
        return self.adapter.exported(folder) if self.adapter else self.network


def load(
    config: ModelConfig, tokens: int, *, device: torch.device, dtype: torch.dtype, autocast: bool = False
) -> LanguageModel:
    """Load the model onto `device`; `tokens` is the size of the tokenizer that will feed it, `autocast` is as in
    `TokenLosses`.

    Raises:
        UserError: the weights are not there, not all there or pickled, are not a causal language model or bring code of
            their own, have fewer embeddings than the tokenizer has tokens, or see the future.
    """
    register()
    source = source_of(config.name)
    check_digest(config)
    files.check(config)
    settings = loading.settings_of(config, source)
    config.adjust(settings)
    try:
        network = (
            loading.read(source, settings, config, dtype)
            if config.pretrained
            else loading.random(settings, config, dtype)
        )
    except UserError:
        raise
    except Exception as error:  # whatever a library's model raises
        raise loading.unbuilt(config, settings, error) from error
    size = settings.get_text_config(decoder=True).vocab_size
    if tokens > size:
        raise UserError(
            f"model.tokenizer={config.tokenizer or config.name} has {tokens} tokens, model.name={config.name} "
            f"embeds {size}; use the tokenizer that belongs to the model"
        )
    return _ready(network, config, device, autocast, settings)


def of_shape(
    layers: int,
    width: int,
    heads: int,
    vocabulary: int,
    window: int,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    autocast: bool = False,
) -> LanguageModel:
    """A GPT-2 of random weights and these sizes; `config` says how it is dropped out and whether it has LoRA."""
    from transformers import GPT2Config

    register()
    settings = GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=window,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config.adjust(settings)
    return _ready(loading.random(settings, config, dtype), config, device, autocast, settings)


def _ready(
    network: nn.Module, config: ModelConfig, device: torch.device, autocast: bool, settings: Any
) -> LanguageModel:
    """With LoRA where wanted, lean, on its device, and known to see no future.

    Raises:
        UserError: it does, or cannot be called as the others are.
    """
    adapter = _with_lora(network, config)
    _finished(network, adapter)
    network.to(device)
    window = next((int(found) for key in WINDOW if (found := getattr(network.config, key, None))), sys.maxsize)
    if (reason := probe.failure(network)) == probe.NOT_FINITE:
        raise UserError(f"model.name={config.name}: {reason}; copy its files again, or set runtime.dtype=float32")
    if reason is not None:
        raise loading.refused(config, settings, reason)
    if not (continues := probe.continues(network, window)):
        logger.info("model.name=%s: its cache does not serve; rows are read again for each new token", config.name)
    return LanguageModel(network, window, adapter, autocast, continues)


def _with_lora(network: nn.Module, config: ModelConfig) -> Adapter | None:
    return Adapter(network, config.lora, base_has_files=config.pretrained) if config.lora.rank else None


def _finished(network: nn.Module, adapter: Adapter | None) -> None:
    make_lean(network)
    if adapter:
        adapter.make_stackable()


def check_second_derivative(model: LanguageModel) -> None:
    """Differentiate a three-token loss twice, so that a kernel that cannot fails now and not an hour later. For
    learners whose outer gradient passes through inner ones.

    Raises:
        UserError: some operation of the network has no second derivative.
    """
    weights = [p for p in model.network.parameters() if p.requires_grad]
    ids = torch.zeros(1, 3, dtype=torch.long, device=weights[0].device)
    training = model.network.training
    model.network.eval()
    try:
        loss = model.network(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum()
        first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        total = torch.stack([g.square().sum() for g in first if g is not None]).sum()
        torch.autograd.grad(total, weights, allow_unused=True)
    except RuntimeError as error:
        raise UserError(
            f"the model has no second derivative ({first_line(error)}); set model.attention=eager, or use "
            "inner.unroll=first_order"
        ) from error
    finally:
        model.network.train(training)


def skeleton(config: ModelConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network's shapes on fake tensors: its configuration is needed, its weights are not.

    Raises:
        UserError: the configuration is not there, or is not one of a causal language model.
    """
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from transformers.initialization import no_init_weights

    register()
    settings = loading.settings_of(config, source_of(config.name))
    config.adjust(settings)
    logger.info("model.name=%s: making its shapes, without weights", config.name)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            network: nn.Module = loading.random(settings, config, dtype)
    except Exception as error:
        raise loading.unbuilt(config, settings, error) from error
    with no_init_weights():
        adapter = _with_lora(network, config)  # peft moves what it adds, which fake tensors cannot
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not isinstance(weight, FakeTensor):
                hollow = nn.Parameter(mode.from_tensor(weight.detach()), requires_grad=weight.requires_grad)
                module.register_parameter(name, hollow)
    with mode:
        _finished(network, adapter)
    return network
