"""LoRA of a language model: where it is put, what else learns, and its base in checkpoints and exports."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from common.engine import adapter
from common.engine.adapter import MATRICES, AdapterFiles
from common.engine.lora import make_stackable
from common.engine.weights import Weights, select
from common.errors import UserError
from common.language.config import LoraConfig

BASE = "base"
"""Folder beside an adapter's files: its base, where no other place has it."""
ALL_LINEAR = "all-linear"
"""What peft calls every linear layer but the output."""


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


class Adapter(adapter.Adapter):
    """The adapter of a language model, and what else of it learns."""

    def __init__(self, network: nn.Module, config: LoraConfig, *, base_has_files: bool) -> None:
        """Attach a fresh one to `network` in place, which keeps its class and freezes but for `config.train`.

        `base_has_files`: the base was loaded, so it can be loaded again.

        Raises:
            UserError: peft does not know this architecture or the layers, or a pattern matches nothing.
        """
        chosen = config.settings(int(getattr(network.config, "num_hidden_layers", 0)))
        if chosen.get("layers_to_transform") and chosen["target_modules"] == ALL_LINEAR:  # peft takes one or the other
            chosen["target_modules"] = _linear_layers(network)
        transposed = any(type(module).__name__ == "Conv1D" for module in network.modules())
        try:
            super().__init__(network, **chosen, fan_in_fan_out=transposed, task_type="CAUSAL_LM")
        except ValueError as error:
            raise _unknown(config, str(error).strip().splitlines()[0]) from error
        for target in self._missing(config):  # peft is content if one is found
            raise _unknown(config, f"no layer's name ends in {target}")
        further = select(network, config.train, "model.lora.train") if config.train else {}
        for weight in further.values():
            weight.requires_grad_()
        self._base_has_files = base_has_files
        self._brings_base = any(MATRICES not in name for name in further) or not base_has_files

    def make_stackable(self) -> None:
        """Let its matrices take stacks without `vmap` where their layers allow it; after all changes of the network."""
        try:
            make_stackable(self.network)
        except UserError:  # then the slower way
            return

    def state_dict(self) -> dict[str, Any]:
        """What learns; with a base that has no files, all weights."""
        return super().state_dict() if self._base_has_files else self.network.state_dict()

    def exported(self, folder: Path) -> AdapterFiles:
        """For `common.run.export.export` into `folder`: the adapter, and its base below it if no other place has it.

        `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(<base>), folder)` gives the same model without
        any code of ours; `AutoModelForCausalLM.from_pretrained(folder)` finds the base by the path written in it.
        """
        if self._brings_base:
            return _FilesWithBase(self._wrapped, self.matrices(), _from_here(folder / BASE))
        return self.files({})

    def adapted(self, weights: Weights, export: Path) -> AdapterFiles:
        """For `common.run.export.write` into any folder: the adapter with `weights` in place of its own.

        `export` is the folder of `exported`, which has the base if no other place has it.

        Raises:
            UserError: some of `weights` are none of the adapter's, or the base is nowhere to be loaded from.
        """
        place = export / BASE
        files = self.files(weights, _from_here(place) if self._brings_base else None)
        if self._brings_base and not place.is_dir():
            raise UserError(f"{place}: no such folder, and the base has no other; finish the training of the run first")
        return files

    def _missing(self, config: LoraConfig) -> list[str]:
        """The targets that no adapted layer goes by."""
        named = config.targets if config.targets != [ALL_LINEAR] else []
        adapted = [f".{name}" for name in self.matrices()]
        return [target for target in named if not any(f".{target}.{MATRICES}" in name for name in adapted)]


class _FilesWithBase(AdapterFiles):
    """An adapter and its base in a folder below."""

    def save_pretrained(self, folder: str) -> None:
        """Write them."""
        base = self.wrapped.get_base_model()
        plain: dict[str, Tensor] = {
            name.replace(".base_layer.", "."): value
            for name, value in base.state_dict().items()
            if MATRICES not in name
        }
        base.save_pretrained(str(Path(folder) / BASE), state_dict=plain)
        super().save_pretrained(folder)


def _linear_layers(network: Any) -> list[str]:
    """Ends of the names of the linear layers, but for the output's."""
    head = network.get_output_embeddings()
    linear = [
        name
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    ]
    return sorted({name.rpartition(".")[2] for name in linear})


def _unknown(config: LoraConfig, reason: str) -> UserError:
    return UserError(
        f"model.lora.targets={config.targets}: {reason}; give the ends of the names of linear layers, such as [c_attn] "
        "for GPT-2, or ['all-linear']"
    )


def _from_here(path: Path) -> str:
    """As one would type it in the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
