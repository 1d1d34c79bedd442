"""LoRA on a frozen base: attached by `peft`, kept in checkpoints without the base, written as `peft` reads it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from common.errors import UserError
from common.language.config import LoraConfig
from common.lora import make_stackable
from common.weights import Weights, select

BASE = "base"
"""Folder beside an adapter's files: its base, where no other place has it."""
MATRICES = "lora_"
"""Part of the names of what `peft` adds, and of nothing else."""


def fast_weights(network: nn.Module, patterns: list[str]) -> Weights:
    """The weights that the inner loop adapts: those of `inner.weights` that learn at all; a frozen base stays.

    Raises:
        UserError: a pattern matches nothing, or frozen weights only.
    """
    chosen = {name: w for name, w in select(network, patterns).items() if w.requires_grad}
    if not chosen:
        raise UserError(
            f"inner.weights={patterns}: all of these are frozen by model.lora; use ['*{MATRICES}*'] for the adapter, "
            "['*'] for all that learns, or name them in model.lora.train"
        )
    return chosen


class Adapter:
    """The adapter of a network, and what else of it learns."""

    def __init__(self, network: nn.Module, config: LoraConfig, *, base_has_files: bool) -> None:
        """Attach a fresh one to `network` in place, which keeps its class and freezes but for `config.train`.

        `base_has_files`: the base was loaded, so it can be loaded again.

        Raises:
            UserError: peft does not know this architecture or the layers, or a pattern matches nothing.
        """
        from peft import LoraConfig as Settings
        from peft import get_peft_model

        settings = Settings(
            **config.settings(int(getattr(network.config, "num_hidden_layers", 0))),
            fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in network.modules()),
            task_type="CAUSAL_LM",
        )
        try:
            with warnings.catch_warnings():  # peft 0.21 asks transformers 5 by an old name
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                self._wrapped = get_peft_model(network, settings)
        except ValueError as error:
            raise _unknown(config, str(error).strip().splitlines()[0]) from error
        for target in _missing(network, config):  # peft is content if one is found
            raise _unknown(config, f"no layer's name ends in {target}")
        self.network = network
        self.trained = select(network, config.train, "model.lora.train") if config.train else {}
        for weight in self.trained.values():
            weight.requires_grad_()
        self._base_has_files = base_has_files

    def make_stackable(self) -> None:
        """Let its matrices take stacks without `vmap` where their layers allow it; after all changes of the network."""
        try:
            make_stackable(self.network)
        except UserError:  # then the slower way
            return

    def state_dict(self) -> dict[str, Any]:
        """What learns; with a base that has no files, all weights."""
        state = self.network.state_dict()
        if not self._base_has_files:
            return state
        learning = {name for name, w in self.network.named_parameters(remove_duplicate=False) if w.requires_grad}
        return {name: value for name, value in state.items() if name in learning}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            RuntimeError: names or shapes differ.
        """
        there = self.state_dict()
        if there.keys() != state.keys():
            raise RuntimeError(f"other weights learn here: {sorted(there.keys() ^ state.keys())[:4]}")
        self.network.load_state_dict(state, strict=False)

    def files(self, folder: Path) -> "AdapterFiles":
        """For `common.export.export` into `folder`."""
        changed = any(MATRICES not in name for name in self.trained)
        return AdapterFiles(self._wrapped, folder if changed or not self._base_has_files else None)


class AdapterFiles:
    """An adapter as `peft` and `transformers` read it, and its base in a folder below where that is found nowhere else.

    `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(<base>), <folder>)` gives the same model without any
    code of ours; `AutoModelForCausalLM.from_pretrained(<folder>)` finds the base by the path written in it.
    """

    def __init__(self, wrapped: Any, place: Path | None) -> None:
        """`place`: final folder of files with a base of their own; None: the base is where it was loaded from."""
        self.wrapped, self.place = wrapped, place

    def save_pretrained(self, folder: str) -> None:
        """Write them."""
        (settings,) = self.wrapped.peft_config.values()
        if self.place is not None:
            base = self.wrapped.get_base_model()
            plain = {
                name.replace(".base_layer.", "."): value
                for name, value in base.state_dict().items()
                if MATRICES not in name
            }
            base.save_pretrained(str(Path(folder) / BASE), state_dict=plain)
            settings.base_model_name_or_path = _from_here(self.place / BASE)
        self.wrapped.save_pretrained(folder, save_embedding_layers=False)


def _missing(network: nn.Module, config: LoraConfig) -> list[str]:
    """The targets that no adapted layer goes by."""
    named = config.targets if config.targets != ["all-linear"] else []
    adapted = [f".{name}" for name, _ in network.named_parameters() if MATRICES in name]
    return [target for target in named if not any(f".{target}.{MATRICES}" in name for name in adapted)]


def _unknown(config: LoraConfig, reason: str) -> UserError:
    return UserError(
        f"model.lora.targets={config.targets}: {reason}; give the ends of the names of linear layers, such as [c_attn] "
        "for GPT-2, or ['all-linear']"
    )


def _from_here(path: Path) -> str:
    """As one would type it in the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
