"""Weights in the files of `torch.save`, read without running anything: the pickle in them is interpreted, not loaded.

Such a file is a zip of a pickle, which says what tensors there are, and of their numbers. Of the pickle's machine only
what a mapping of names to tensors needs is understood here; whatever else stands in it is an error.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError

TYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
}  # fmt: skip
TENSOR, MAPPING = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "GLOBAL")


def read_state_dict(file: Path, key: str) -> dict[str, Tensor]:
    """Name -> tensor of what `torch.save(module.state_dict(), file)` wrote, on the CPU.

    `key` is where the file was set, for messages.

    Raises:
        UserError: it is not there, damaged, of the form before torch 1.6, or holds something else than named tensors.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            found = _Machine(archive, pickled.removesuffix("data.pkl")).run(archive.read(pickled))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; correct {key}") from error
    except (OSError, ValueError, LookupError, TypeError, StopIteration, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{file} holds no named tensors as torch.save writes them ({error or 'no data.pkl'}); correct {key}, or "
            "fetch the file anew"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(
            f"{file} holds something else than named tensors; save its state_dict() alone, or correct {key}"
        )
    return {str(name): value for name, value in found.items()}


class _Machine:
    """The part of the pickle's stack machine that a state dict is written for."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """What is on the stack at the end."""
        for code, given, _ in pickletools.genops(pickled):
            self._step(code.name, given)
        return self.stack[-1]

    def _step(self, name: str, given: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in LITERALS:
            stack.append(given)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_TUPLE", "MARK"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]() if name != "MARK" else MARK)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[given])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name == "SETITEM":
            value, word = stack.pop(), stack.pop()
            stack[-1][word] = value
        elif name == "SETITEMS":
            items = self._marked()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments))
        elif name == "BUILD":  # of a state dict: the versions of its modules
            stack.pop()
        else:
            raise ValueError(f"the instruction {name}")

    def _marked(self) -> list[Any]:
        """What lies above the last mark, which goes, too."""
        place = max(i for i, each in enumerate(self.stack) if each is MARK)
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _storage(self, named: Any) -> Tensor:
        """All numbers of a storage, in a row."""
        _, kind, name, _, count = named
        dtype = TYPES[str(kind).rpartition(" ")[2]]
        raw = bytearray(self.archive.read(f"{self.folder}data/{name}"))
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f"{len(raw)} bytes for {count} numbers of {dtype}")
        return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)

    def _made(self, function: Any, arguments: Any) -> Any:
        if function == MAPPING and not arguments:
            return {}
        if function == TENSOR:
            storage, offset, shape, stride, *_ = arguments
            return torch.as_strided(storage, shape, stride, offset).contiguous()
        raise ValueError(f"a call of {function}")
