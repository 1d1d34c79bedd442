"""LoRA on a frozen base: attached by `peft`, kept in checkpoints without the base, written as `peft` reads it."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.lora import make_stackable
from common.engine.weights import Weights, select
from common.errors import UserError
from common.language.config import LoraConfig

BASE = "base"
"""Folder beside an adapter's files: its base, where no other place has it."""
ALL_LINEAR = "all-linear"
"""What peft calls every linear layer but the output."""
MATRICES = "lora_"
"""Part of the names of what `peft` adds, and of nothing else."""
SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as `peft` calls them."""
DECIDING = ("r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform", "rank_pattern", "alpha_pattern")
"""Settings by which the same matrices are put elsewhere, or scaled otherwise."""
SAMPLE = 256
"""Numbers of a tensor that its fingerprint looks at, about."""
_WRAPPED = "base_model.model."
"""Before the names of the network's weights in `peft`'s own."""


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

        chosen = config.settings(int(getattr(network.config, "num_hidden_layers", 0)))
        if chosen.get("layers_to_transform") and chosen["target_modules"] == ALL_LINEAR:  # peft takes one or the other
            chosen["target_modules"] = _linear_layers(network)
        settings = Settings(
            **chosen,
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
        """For `common.run.export.export` into `folder`."""
        return AdapterFiles(self._wrapped, folder if self._brings_base else None)

    def adapted(self, weights: Weights, exported: Path) -> "AdaptedFiles":
        """For `common.run.export.write` into any folder: the adapter with `weights` in place of its own.

        `exported` is the folder that `files` were written into, which has the base if no other place has it.

        Raises:
            UserError: some of `weights` are none of the adapter's, or the base is nowhere to be loaded from.
        """
        if strange := [name for name in weights if MATRICES not in name]:
            raise UserError(
                f"{len(strange)} of the weights that were written into, such as {strange[0]}, belong to no adapter, so "
                "no adapter can hold them; train with inner.weights=['*lora_*']"
            )
        place = exported / BASE
        if self._brings_base and not place.is_dir():
            raise UserError(f"{place}: no such folder, and the base has no other; finish the training of the run first")
        matrices = {name: w for name, w in self.network.named_parameters() if MATRICES in name} | weights
        return AdaptedFiles(self._wrapped, matrices, place if self._brings_base else None)

    def read(self, folder: Path) -> Weights:
        """The matrices of an adapter like this one in `folder`, under the names of the network's own.

        Raises:
            UserError: there is none, it is damaged, or it has other settings.
        """
        from peft import PeftConfig
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for name in (SETTINGS, TENSORS):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: no adapter ({name} is missing); give a folder that one was saved into")
        try:
            settings = PeftConfig.from_pretrained(str(folder))
            tensors = load_file(folder / TENSORS)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, SafetensorError) as error:
            raise UserError(f"{folder}: damaged adapter ({error}); copy or save it again") from error
        self._check(folder, settings)
        names = {
            _WRAPPED + name.replace(".default.", "."): (name, w)
            for name, w in self.network.named_parameters()
            if MATRICES in name
        }
        found: Weights = {}
        for key, (name, own) in names.items():
            if key not in tensors or tensors[key].shape != own.shape:
                there = list(tensors[key].shape) if key in tensors else "missing"
                raise UserError(
                    f"{folder / TENSORS}: {key} is {there}, this model needs {list(own.shape)}; the adapter belongs to "
                    "another model, or is damaged"
                )
            found[name] = tensors[key].to(own)
        if strange := tensors.keys() - names.keys():
            raise UserError(f"{folder / TENSORS}: {min(strange)} has no place in this model; it belongs to another")
        return found

    def fingerprint(self) -> str:
        """12 hexadecimal digits that tell one base from another, by a sample of every tensor that is not the adapter's;
        whatever learns besides the adapter counts as base.
        """
        digest = hashlib.sha256()
        for name, weight in self.network.named_parameters():
            if MATRICES not in name:
                flat = weight.detach().flatten()
                sample = flat[:: max(1, flat.numel() // SAMPLE)].to("cpu", torch.float32).contiguous()
                digest.update(f"{name}{list(weight.shape)}".encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def _brings_base(self) -> bool:
        return any(MATRICES not in name for name in self.trained) or not self._base_has_files

    def _check(self, folder: Path, settings: Any) -> None:
        """Refuse settings that mean another function of the same matrices."""
        (own,) = self._wrapped.peft_config.values()
        if settings.peft_type != own.peft_type:
            raise UserError(f"{folder}: an adapter of kind {settings.peft_type}, this model has {own.peft_type}")
        for key in DECIDING:
            there, here = (_comparable(getattr(each, key)) for each in (settings, own))
            if there != here:
                raise UserError(
                    f"{folder}: an adapter with {key}={there}, this model's has {here}; open it with the run that it "
                    "was saved from, or one of the same model.lora"
                )


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


def _linear_layers(network: Any) -> list[str]:
    """Ends of the names of the linear layers, but for the output's."""
    head = network.get_output_embeddings()
    linear = [
        name
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    ]
    return sorted({name.rpartition(".")[2] for name in linear})


class AdaptedFiles:
    """One adapter of many on the same base, as `peft` reads it; no base beside it."""

    def __init__(self, wrapped: Any, matrices: Weights, base: Path | None) -> None:
        """`base`: None where it was loaded from."""
        self.wrapped, self.matrices, self.base = wrapped, matrices, base

    def save_pretrained(self, folder: str) -> None:
        """Write them."""
        (settings,) = self.wrapped.peft_config.values()
        if self.base is not None:
            settings.base_model_name_or_path = _from_here(self.base)
        state = {_WRAPPED + name: value.detach() for name, value in self.matrices.items()}
        self.wrapped.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def _comparable(value: Any) -> Any:
    """Sets as lists, in order; nothing as None."""
    return (sorted(value) if isinstance(value, set | list | tuple) else value) or None


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
