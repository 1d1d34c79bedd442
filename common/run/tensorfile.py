"""Tensors in one file of the safetensors format, written and read piece by piece.

    8 bytes     length of the header, little-endian
    header      JSON, padded with spaces: name -> {"dtype", "shape", "data_offsets"}; texts under "__metadata__"
    the rest    the tensors without gaps, the widest types first

The bytes are those of `safetensors.torch.save`, which holds every tensor twice more before the first byte is written.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from common.errors import DamagedError
from common.run.files import open_regular, sync_file
from common.run.statefile import loads

SUFFIX = ".safetensors"
METADATA = "__metadata__"
NAMES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.complex64: "C64", torch.float32: "F32",
    torch.uint32: "U32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16",
    torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Types as the format calls them, in the order in which their tensors are written."""
DTYPES = {name: dtype for dtype, name in NAMES.items()}
PIECE = 1 << 22
"""Bytes that are copied from another device, written and hashed at a time."""
MOST = 1 << 56
"""Elements."""
LONGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no longer ones."""


def write(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Write a file and wait until it is on the disk; returns its SHA-256 and its size in bytes.

    Besides the tensors `PIECE` bytes are held, or one tensor if its elements do not lie in a row.

    Raises:
        TypeError: the format has no such type, or needs the name for itself.
        OSError: the disk is full or the place not writable.
    """
    hashed = hashlib.sha256()
    with path.open("wb") as file:

        def take(piece: bytes | memoryview) -> None:
            hashed.update(piece)
            file.write(piece)

        _give(tensors, texts or {}, take)
        sync_file(file)
        return hashed.hexdigest(), file.tell()


def digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str] | None = None) -> str:
    """The SHA-256 that `write` would return; nothing is written."""
    hashed = hashlib.sha256()
    _give(tensors, texts or {}, hashed.update)
    return hashed.hexdigest()


def verify(path: Path, sha256: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file through, without its tensors being held; returns empty ones in their stead, and its texts.

    Raises:
        DamagedError: the hash differs.
        ValueError, KeyError, TypeError, RecursionError: it is not of the format.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        hashed = hashlib.file_digest(file, "sha256").hexdigest()
        _compare(path, hashed, sha256)
        file.seek(0)
        _, laid_out, texts = _header(path, file)
        return {name: torch.empty(0, dtype=dtype) for name, dtype, _ in laid_out}, texts


def read(path: Path, sha256: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU and in memory of their own, and its texts.

    Raises:
        DamagedError: the hash differs.
        ValueError, KeyError, TypeError, RecursionError: it is not of the format.
        OSError: it cannot be read.
    """
    hashed = hashlib.sha256()
    tensors = {}
    with open_regular(path) as file:
        header, laid_out, texts = _header(path, file)
        hashed.update(header)
        for name, dtype, shape in laid_out:
            tensors[name] = torch.empty(shape, dtype=dtype)
            for part in _parts(tensors[name]):
                file.readinto(_bytes(part))
                hashed.update(_bytes(part))
    _compare(path, hashed.hexdigest(), sha256)
    return tensors, texts


def _header(path: Path, file: IO[bytes]) -> tuple[bytes, list[tuple[str, torch.dtype, list[int]]], dict[str, str]]:
    """The first bytes of an open file, and what they say: name, type and shape of its tensors, and its texts."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"{path.name}: a header of {length} bytes in a file of {size}")
    header = file.read(length)
    entries = loads(header)
    texts = entries.pop(METADATA, {})
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(f"{path.name}: {METADATA} that is no text")
    return first + header, _laid_out(entries, size - 8 - length), texts


def _laid_out(entries: Mapping[str, Any], room: int) -> list[tuple[str, torch.dtype, list[int]]]:
    """Name, type and shape of a header's tensors in the order of their bytes, of which there are `room`.

    Raises:
        ValueError: there are gaps, or more or fewer bytes than the tensors have; nothing has been allocated yet.
    """
    found, end = [], 0
    for name, entry in sorted(entries.items(), key=lambda item: list(item[1]["data_offsets"])):
        dtype, shape, (begin, stop) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        counts = all(type(each) is int and each >= 0 for each in (begin, stop, *shape))
        if not counts or math.prod(filter(None, shape)) > MOST:  # torch refuses [2**62, 2**62, 0], too
            raise ValueError(f"{name}: shape {shape} at bytes {begin} to {stop}")
        if begin != end or stop - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name}: {dtype} of shape {shape} at bytes {begin} to {stop}, after {end}")
        end = stop
        found.append((name, dtype, shape))
    if end != room:
        raise ValueError(f"tensors of {end} bytes in {room}")
    return found


def _give(tensors: Mapping[str, Tensor], texts: Mapping[str, str], take: Callable[[bytes | memoryview], Any]) -> None:
    """Call `take` with the bytes of the file, in order; a piece is let go of before the next is made."""
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES or name == METADATA:
            raise TypeError(f"{name} of {tensor.dtype} is nothing that a safetensors file can hold")
    order = list(NAMES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    entries: dict[str, Any] = {METADATA: dict(texts)} if texts else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        entries[name] = {"dtype": NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    take(len(header).to_bytes(8, "little") + header)
    for name in names:
        _give_tensor(tensors[name], take)


def _give_tensor(tensor: Tensor, take: Callable[[bytes | memoryview], Any]) -> None:
    for part in _parts(tensor.detach()):
        take(_bytes(part.cpu().resolve_conj().resolve_neg().contiguous()))


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The elements in a row, at most `PIECE` bytes at a time; views if they lie so."""
    return torch.split(tensor.reshape(-1), PIECE // tensor.itemsize)


def _bytes(part: Tensor) -> memoryview:
    """The memory of a contiguous row of elements on the CPU."""
    # torch calls a single element contiguous whatever its stride, but shows no bytes of it then
    return part.as_strided(part.shape, (1,)).view(torch.uint8).numpy().data


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedError(f"{path} is damaged (its hash differs); use an earlier checkpoint")
