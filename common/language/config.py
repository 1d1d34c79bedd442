"""Settings of a language model and its LoRA (no torch here: `--help` and `--cfg job` read this file)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from common.errors import UserError
from common.fields import HASHED_IF_SET, UNHASHED


class Attention(StrEnum):
    """What computes a model's attention."""

    twice = "twice"
    """`common.engine.twice`: its second derivative is quick and takes memory linear in the sequence."""
    eager = "eager"
    """The model's own, in plain torch: slower, and for every family."""


@dataclass
class LoraConfig:
    """Low-rank adapters on a frozen base, by `peft`."""

    rank: int = 0
    """r of every adapter; 0 is off, and the whole model learns."""
    alpha: int = 32
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = 0.1
    """On the adapter's input while training."""
    targets: list[str] = field(default_factory=list)
    """Ends of the names of the layers that get one, or ['all-linear']; empty leaves the choice to `peft`."""
    train: list[str] = field(default_factory=list)
    """Shell patterns of further weights that learn, such as the embeddings; the rest of the base is frozen."""

    def settings(self, layers: int) -> dict[str, Any]:
        """What `peft.LoraConfig` is given for a network of `layers` layers, but for its architecture."""
        chosen = self.targets[0] if self.targets == ["all-linear"] else list(self.targets) or None
        return {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "target_modules": chosen}

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range, or names layers while LoRA is off.
        """
        if self.rank < 0 or self.alpha <= 0:
            raise UserError(
                f"model.lora.rank={self.rank}, model.lora.alpha={self.alpha}: use a rank of 0 (off) or more, and a "
                "positive alpha"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.lora.dropout={self.dropout}: it is a probability; use a value in [0, 1)")
        if self.rank == 0 and (self.targets or self.train):
            raise UserError(
                f"model.lora.targets={self.targets}, model.lora.train={self.train} with model.lora.rank=0: LoRA is "
                "off and everything learns; set model.lora.rank=16, or remove them"
            )


@dataclass
class ModelConfig:
    """The language model."""

    name: str = "gpt2"
    """A Hugging Face causal language model: hub name, local folder, or one that lies in this package: `tiny` with
    weights, `small` without."""
    tokenizer: str | None = None
    """Name or folder of the tokenizer; null takes the model's own."""
    pretrained: bool = True
    """False starts from random weights of the same shape."""
    digest: str | None = None
    """What the SHA-256 of the folder's model.safetensors must begin with; null takes any. With it, runs from other
    weights are other runs: they have another config hash."""
    attention: Attention = field(default=Attention.twice, metadata=HASHED_IF_SET)
    pickled: bool = field(default=False, metadata=UNHASHED)
    """True reads pytorch_model.bin where a folder has no safetensors: tensors only, no code of the file is run."""
    dropout: float | None = None
    """Dropout probability while training, inner and outer loop; null keeps the model's own."""
    evaluation_dropout: bool = False
    """True evaluates with dropout on, as the released code did."""
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout}: it is a probability; use a value in [0, 1), or null")

    def adjust(self, settings: Any) -> None:
        """Change the network's own configuration before it is built."""
        for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"):
            if self.dropout is not None and hasattr(settings, key):
                setattr(settings, key, self.dropout)


@dataclass
class AnswersConfig:
    """How answers are produced and scored."""

    LEAST: ClassVar[dict[str, int]] = {"batch_problems": 1, "max_new_tokens": 1, "inner_steps": 0, "patience": 0}
    """The smallest value of every whole number; a paper adds its own."""

    batch_problems: int = 16
    max_new_tokens: int = 128
    """Longest answer at test time, in tokens."""
    inner_steps: int = 0
    """Inner steps at test time; 0 means as many as in training."""
    confidence: float = 0.95
    patience: int = 0
    """Stop after so many dev evaluations without improvement; 0 never stops early."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: a value is out of range.
        """
        for key, least in self.LEAST.items():
            if getattr(self, key) < least:
                raise UserError(f"evaluation.{key}={getattr(self, key)}: use {least} or more")
        if not 0 < self.confidence < 1:
            raise UserError(f"evaluation.confidence={self.confidence}: it is a probability; use 0.95 or 0.99")
