"""LoRA of a language model: where it is put, what else learns, and its base in checkpoints and exports."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from common.engine import adapter
from common.engine.adapter import MATRICES, AdapterFiles
from common.engine.lora import make_stackable
from common.engine.weights import Weights, select
from common.errors import UserError
from common.language.config import LoraConfig
from common.language.sources import WEIGHTS
from common.run.files import write_synced

BASE = "base"
"""Folder beside an adapter's files: its base, where no other place has it."""
INDEX = f"{WEIGHTS}.index.json"
"""Says which file has which weight."""
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
        any code of ours, and so does `AutoModelForCausalLM.from_pretrained(folder)`: it finds the base by the absolute
        path or hub name written in it, or, wherever the folder is moved, below it.
        """
        if self._brings_base:
            return _FilesWithBase(self._wrapped, self.matrices(), str((folder / BASE).absolute()))
        return self.files({})

    def adapted(self, weights: Weights, export: Path) -> AdapterFiles:
        """For `common.run.export.write` into any folder: the adapter with `weights` in place of its own.

        `export` is the folder of `exported`, which has the base if no other place has it.

        Raises:
            UserError: some of `weights` are none of the adapter's, or the base is nowhere to be loaded from.
        """
        place = export / BASE
        files = self.files(weights, str(place.absolute()) if self._brings_base else None)
        if self._brings_base and not place.is_dir():
            raise UserError(f"{place}: no such folder, and the base has no other; finish the training of the run first")
        return files

    def _missing(self, config: LoraConfig) -> list[str]:
        """The targets that no adapted layer goes by."""
        named = config.targets if config.targets != [ALL_LINEAR] else []
        adapted = [f".{name}" for name in self.matrices()]
        return [target for target in named if not any(f".{target}.{MATRICES}" in name for name in adapted)]


class _FilesWithBase(AdapterFiles):
    """An adapter and its base in a folder below, to which the adapter's folder points by names of its own files."""

    def save_pretrained(self, folder: str) -> None:
        """Write them."""
        from transformers.utils import CONFIG_NAME

        base = self.wrapped.get_base_model()
        plain: dict[str, Tensor] = {
            name.replace(".base_layer.", "."): value
            for name, value in base.state_dict().items()
            if MATRICES not in name
        }
        place = Path(folder) / BASE
        base.save_pretrained(str(place), state_dict=plain)
        write_synced(Path(folder) / CONFIG_NAME, (place / CONFIG_NAME).read_bytes())
        write_synced(Path(folder) / INDEX, json.dumps({"metadata": {}, "weight_map": _where(place)}, indent=2).encode())
        super().save_pretrained(folder)


def _where(base: Path) -> dict[str, str]:
    """The weights in the folder `base`, each with its file as seen from the folder above."""
    from safetensors import safe_open

    found = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            found.update(dict.fromkeys(stored.keys(), f"{base.name}/{path.name}"))
    return found


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
