"""The network: loaded or built through the normal Hugging Face code, ready for second derivatives."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.engine.twice.lean import make_lean
from common.errors import UserError
from common.language.adapter import Adapter
from common.language.attention import ATTENTION, register
from common.language.config import ModelConfig
from common.language.sources import check_digest, first_line, source_of
from common.language.token_losses import TokenLosses

REMEDIES = (
    "put the weights into a local folder and set model.name=<folder>; or fetch them once on a machine with a network "
    "(python -m scripts.fetch gpt2 <folder>); or run without them: scale=cpu trains the embedded model=tiny on "
    "generated data"
)


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
        UserError: the weights are not there, are not a causal language model, have fewer embeddings than the tokenizer
            has tokens, or no second derivative.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    source = source_of(config.name)
    check_digest(config)
    try:
        settings = AutoConfig.from_pretrained(source, local_files_only=True)  # downloads are scripts/fetch.py's
        config.adjust(settings)
        if config.pretrained:
            network = AutoModelForCausalLM.from_pretrained(
                source, config=settings, attn_implementation=ATTENTION, dtype=dtype, local_files_only=True
            )
        else:
            network = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"model.name={config.name}: {first_line(error)}; {REMEDIES}") from error
    if tokens > settings.vocab_size:
        raise UserError(
            f"model.tokenizer={config.tokenizer or config.name} has {tokens} tokens, model.name={config.name} "
            f"embeds {settings.vocab_size}; use the tokenizer that belongs to the model"
        )
    return _ready(network, config, device, autocast)


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
    from transformers import AutoModelForCausalLM, GPT2Config

    register()
    settings = GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=window,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config.adjust(settings)
    network = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=dtype)
    return _ready(network, config, device, autocast)


def _ready(network: nn.Module, config: ModelConfig, device: torch.device, autocast: bool) -> LanguageModel:
    """With LoRA where wanted, lean, on its device, and known to have a second derivative."""
    adapter = _with_lora(network, config)
    _finished(network, adapter)
    network.to(device)
    window = getattr(network.config, "max_position_embeddings", None) or sys.maxsize  # None: no limit
    return LanguageModel(network, int(window), adapter, autocast)


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
            f"the model has no second derivative ({first_line(error)}); load it with eager attention, or use "
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
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    try:
        settings = AutoConfig.from_pretrained(source_of(config.name), local_files_only=True)
        config.adjust(settings)
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            network: nn.Module = AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=dtype)
        adapter = _with_lora(network, config)  # peft moves what it adds, which fake tensors cannot
        for module in network.modules():
            for name, weight in module.named_parameters(recurse=False):
                if not isinstance(weight, FakeTensor):
                    hollow = nn.Parameter(mode.from_tensor(weight.detach()), requires_grad=weight.requires_grad)
                    module.register_parameter(name, hollow)
        with mode:
            _finished(network, adapter)
        return network
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name={config.name}: {first_line(error)}; config.json alone would tell its size, else {REMEDIES}"
        ) from error
