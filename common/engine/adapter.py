"""LoRA on any network: attached by `peft`, one adapter of many as a mapping, in folders that `peft` alone reads.

adapter = Adapter(network, target_modules=layers(network, ["*temp_attentions*.to_q", "*temp_convs*"]), r=32)
make_stackable(network)                                        # common.engine.lora
start = stack(adapter.matrices(), episodes)                    # every tensor [episodes, ...]
write(folder, adapter.files(unstack(fast, episode)))           # common.run.export: whole or not at all
weights = adapter.read(folder)
PeftModel.from_pretrained(base, folder)                        # the same function, without code of ours
"""

import hashlib
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.engine.swap import unswapped
from common.engine.weights import Weights
from common.errors import UserError

logger = logging.getLogger(__name__)
MATRICES = "lora_"
"""Part of the names of what `peft` adds, and of nothing else."""
SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, as `peft` calls them."""
DECIDING = ("r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform", "rank_pattern", "alpha_pattern")
"""Settings by which the same matrices are put elsewhere, or scaled otherwise."""
SAMPLE = 256
"""Numbers of a tensor that fingerprints of earlier versions looked at, about."""
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of matrices."""
WRAPPED = "base_model.model."
"""Before the names of the network's weights in `peft`'s own."""


def layers(network: nn.Module, patterns: Sequence[str], key: str = "target_modules") -> str:
    """The linear and convolution layers whose names match one of the shell `patterns`, as `target_modules` of `peft`.

    A regular expression of whole names: in a list, `peft` takes a name for the end of others as well. `key` is where
    the patterns were set, for messages.

    Raises:
        UserError: there is no pattern, or one matches no such layer.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    if not patterns:
        raise UserError(f"{key}=[]: no layer gets an adapter; name some, such as {', '.join(names[:4])}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"{key}: the pattern '{pattern}' matches no linear or convolution layer; names look like "
                f"{', '.join(names[:4])}, ..."
            )
    return "|".join(re.escape(name) for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


class Adapter:
    """LoRA in a network whose other weights are frozen."""

    def __init__(self, network: nn.Module, part: str = "", **settings: Any) -> None:
        """Attach a fresh one to `network` in place, which keeps its class.

        Args:
            network: its weights are frozen.
            part: the module in it that `peft` knows as the network, in `target_modules` and in files; "" is all of it.
                Names of matrices are those of `network` either way.
            settings: those of `peft.LoraConfig`.

        Raises:
            ValueError: peft does not know the layers, or what to do with them.
        """
        from peft import LoraConfig, get_peft_model

        with warnings.catch_warnings():  # peft 0.21 asks transformers 5 by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            self._wrapped = get_peft_model(network.requires_grad_(False).get_submodule(part), LoraConfig(**settings))
        self.network = network
        self._before = f"{part}." if part else ""
        self._hashed: tuple[Any, str] | None = None

    def matrices(self) -> Weights:
        """A and B of every layer, under the names of the network's own weights."""
        with unswapped():
            return {name: weight for name, weight in self.network.named_parameters() if MATRICES in name}

    def state_dict(self) -> dict[str, Any]:
        """What learns: the matrices, and what else asks for a gradient."""
        with unswapped():
            learning = {name for name, w in self.network.named_parameters(remove_duplicate=False) if w.requires_grad}
            return {name: value for name, value in self.network.state_dict().items() if name in learning}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            RuntimeError: names or shapes differ.
        """
        there = self.state_dict()
        if there.keys() != state.keys():
            raise RuntimeError(f"other weights learn here: {sorted(there.keys() ^ state.keys())[:4]}")
        with unswapped():
            self.network.load_state_dict(state, strict=False)

    def files(self, weights: Weights, base: str | None = None) -> "AdapterFiles":
        """For `common.run.export.write` into any folder: the adapter with `weights` in place of its own.

        `base`: where `peft` finds the network; None: where it was loaded from, if it was.

        Raises:
            UserError: some of `weights` are none of the adapter's.
            ValueError: they are a stack.
        """
        own = self.matrices()
        if strange := [name for name in weights if name not in own]:
            raise UserError(
                f"{len(strange)} of the weights that were written into, such as {strange[0]}, belong to no adapter, so "
                f"no adapter can hold them; train with inner.weights=['*{MATRICES}*']"
            )
        for name, weight in weights.items():
            if weight.shape != own[name].shape:
                raise ValueError(
                    f"{name} is {list(weight.shape)}, one adapter's {list(own[name].shape)}: unstack first"
                )
        named = {name.removeprefix(self._before): value for name, value in (own | weights).items()}
        return AdapterFiles(self._wrapped, named, base)

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
            WRAPPED + re.sub(r"(\.lora_\w+)\.default\b", r"\1", name.removeprefix(self._before)): (name, own)
            for name, own in self.matrices().items()
        }
        found: Weights = {}
        for key, (name, own) in names.items():
            if key not in tensors or tensors[key].shape != own.shape:
                there = list(tensors[key].shape) if key in tensors else "missing"
                raise UserError(
                    f"{folder / TENSORS}: {key} is {there}, this model needs {list(own.shape)}; the adapter belongs to "
                    "another model, or is damaged"
                )
            if tensors[key].dtype not in NUMBERS:
                raise UserError(
                    f"{folder / TENSORS}: {key} holds {str(tensors[key].dtype).removeprefix('torch.')}, an adapter's "
                    "matrices are floating-point numbers; copy or save it again"
                )
            found[name] = tensors[key].to(own)
            if not found[name].isfinite().all():
                raise UserError(
                    f"{folder / TENSORS}: {key} holds numbers that are not finite, or too large for this model's "
                    f"{str(own.dtype).removeprefix('torch.')}; copy or save it again"
                )
        if strange := tensors.keys() - names.keys():
            raise UserError(f"{folder / TENSORS}: {min(strange)} has no place in this model; it belongs to another")
        return found

    def fingerprint(self) -> str:
        """12 hexadecimal digits that tell one base from another, by every byte that is not the adapter's: weights, and
        the buffers that are saved with them; whatever learns besides the adapter counts as base. The same numbers in
        another precision are the same base. Bytes that were not written to since are not read again.
        """
        base = self._base()
        state = tuple((name, tensor.data_ptr(), tensor._version) for name, tensor in base.items())
        if self._hashed is None or self._hashed[0] != state:
            digest = hashlib.sha256()
            for name, tensor in base.items():
                own = _exactly(tensor.detach().cpu())
                digest.update(f"{name}{list(own.shape)}{own.dtype}".encode())
                digest.update(own.contiguous().flatten().view(torch.uint8).numpy().data)
            self._hashed = (state, digest.hexdigest()[:12])
        return self._hashed[1]

    def is_base_of(self, fingerprint: str) -> bool:
        """Whether `fingerprint` is this base's; of a sample of its numbers, as earlier versions took it, with a
        warning.
        """
        if fingerprint == self.fingerprint():
            return True
        if fingerprint != self._sampled():
            return False
        logger.warning("a memory of an earlier version, whose base was told by a sample of it; save it again")
        return True

    def _base(self) -> Weights:
        """Parameters, each once, and saved buffers."""
        with unswapped():
            weights = dict(self.network.named_parameters())
            saved = self.network.state_dict().keys()
            buffers = {name: buffer for name, buffer in self.network.named_buffers() if name in saved}
        return {name: tensor for name, tensor in {**weights, **buffers}.items() if MATRICES not in name}

    def _sampled(self) -> str:
        """The fingerprint of earlier versions: about `SAMPLE` numbers of every weight."""
        digest = hashlib.sha256()
        with unswapped():
            named = dict(self.network.named_parameters())
        for name, weight in named.items():
            if MATRICES not in name:
                flat = weight.detach().flatten()
                sample = flat[:: max(1, flat.numel() // SAMPLE)].to("cpu", torch.float32).contiguous()
                digest.update(f"{name}{list(weight.shape)}".encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:12]

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
                    "was saved from, or one of the same settings"
                )


class AdapterFiles:
    """One adapter of many on the same base, as `peft` reads it; no base beside it."""

    def __init__(self, wrapped: Any, matrices: Weights, base: str | None) -> None:
        """`base`: what `peft` is told about where the base is; None leaves that as it is."""
        self.wrapped, self.matrices, self.base = wrapped, matrices, base

    def save_pretrained(self, folder: str) -> None:
        """Write them, as `common.run.export.write` asks its parts to."""
        (settings,) = self.wrapped.peft_config.values()
        if self.base is not None:
            settings.base_model_name_or_path = self.base
        state = {WRAPPED + name: value.detach() for name, value in self.matrices.items()}
        with unswapped():
            self.wrapped.save_pretrained(folder, state_dict=state, save_embedding_layers=False)


def _comparable(value: Any) -> Any:
    """Sets as lists, in order; nothing as None."""
    return (sorted(value) if isinstance(value, set | list | tuple) else value) or None


def _exactly(tensor: Tensor) -> Tensor:
    """The same numbers in float32, if that holds them."""
    if not tensor.is_floating_point() or tensor.dtype is torch.float32:
        return tensor
    single = tensor.float()
    return single if single.to(tensor.dtype).equal(tensor) else tensor
