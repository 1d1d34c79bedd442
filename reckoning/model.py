"""Room 3, the network: loaded or built through the normal Hugging Face code, ready for second derivatives.

`python -m reckoning.model +experiment=proofwriter` says how large it is, which weights are fast, and whether it fits.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from common.entry import entry
from common.errors import UserError
from common.files import remove_if_empty
from common.schema import to_typed
from common.twice.attention import register
from common.twice.cross_entropy import TokenLosses
from common.twice.lean import make_lean
from common.twice.policy import ATTENTION
from reckoning.config import ModelConfig, TrainConfig
from reckoning.sources import check_digest, first_line, source_of

logger = logging.getLogger(__name__)
REMEDIES = (
    "put the weights into a local folder and set model.name=<folder>; or fetch them once on a machine with a network "
    "(python -m scripts.fetch gpt2 <folder>); or run without them: scale=cpu trains the embedded model=tiny on "
    "generated data"
)

ConfigStore.instance().store(name="schema", node=TrainConfig)


@dataclass
class LanguageModel:
    """A causal language model."""

    network: nn.Module
    """Called as `network(input_ids=...)`, answers with `.logits`; attention is twice differentiable."""
    window: int
    """Longest sequence it reads, in tokens."""
    losses: TokenLosses = field(init=False)
    """Next-token losses, in chunks where the vocabulary is large."""

    def __post_init__(self) -> None:
        self.losses = TokenLosses(self.network)


def load(config: ModelConfig, tokens: int, *, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """Load the model onto `device`; `tokens` is the size of the tokenizer that will feed it.

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
        for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"):
            if config.dropout is not None and hasattr(settings, key):
                setattr(settings, key, config.dropout)
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
    make_lean(network).to(device)
    window = getattr(settings, "max_position_embeddings", None) or sys.maxsize  # None: relative positions, no limit
    model = LanguageModel(network, int(window))
    check_second_derivative(model)
    return model


def check_second_derivative(model: LanguageModel) -> None:
    """Differentiate a three-token loss twice, so that a kernel that cannot fails now and not an hour later.

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
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    try:
        settings = AutoConfig.from_pretrained(source_of(config.name), local_files_only=True)
        with FakeTensorMode(allow_non_fake_inputs=True):
            return make_lean(AutoModelForCausalLM.from_config(settings, attn_implementation=ATTENTION, dtype=dtype))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name={config.name}: {first_line(error)}; config.json alone would tell its size, else {REMEDIES}"
        ) from error


@entry("pkg://conf.reckoning")
def main(cfg: DictConfig) -> None:
    """Print how large the model is and whether training it fits."""
    from reckoning.memory import report
    from reckoning.shape import shape_of

    config = to_typed(cfg, TrainConfig)
    remove_if_empty(Path(HydraConfig.get().runtime.output_dir))  # a run's folder, and this is none
    network = skeleton(config.model, getattr(torch, config.runtime.dtype.name)).train()
    sys.stdout.write(report(network, config, shape_of(config)))


if __name__ == "__main__":
    main()
