"""Buffers of modules as they stood: what a forward pass that is run again reads and writes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALL = 2**16
"""Entries of a buffer that is kept where nothing says that a forward pass writes to it."""


def unseen(buffer: Tensor, training: bool) -> bool:
    """Whether it may be written to without a trace in `_version`, as batch norm writes to its statistics."""
    return (training and buffer.is_floating_point()) or buffer.is_inference()


def kept(buffer: Tensor, training: bool) -> bool:
    """Whether a forward pass may write to `buffer`, which belongs to a module in that mode."""
    if buffer.layout is not torch.strided:
        return False
    if any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True)):
        return False  # nobody can
    return buffer.numel() <= SMALL or unseen(buffer, training)


class Standing:
    """Modes and buffers of `modules` as they are now."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modes: list[tuple[nn.Module, bool]] = []
        self._buffers: list[tuple[dict[str, Tensor | None], str, Tensor, Tensor]] = []
        for part in modules:
            if isinstance(part, torch.jit.ScriptModule):  # which keeps its tables to itself
                continue
            self._modes.append((part, part.training))
            for name, buffer in part._buffers.items():
                if buffer is not None and kept(buffer, part.training):
                    self._buffers.append((part._buffers, name, buffer, buffer.detach().clone()))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside the block they are so again, and afterwards what they were before it."""
        modes = [part.training for part, _ in self._modes]
        now = [(table.get(name), buffer.detach().clone()) for table, name, buffer, _ in self._buffers]
        for part, mode in self._modes:
            part.training = mode
        for table, name, buffer, content in self._buffers:
            table[name] = buffer
            buffer.data.copy_(content)  # `data`: a graph may have saved the buffer
        try:
            yield
        finally:
            for (part, _), mode in zip(self._modes, modes, strict=True):
                part.training = mode
            for (table, name, buffer, _), (there, content) in zip(self._buffers, now, strict=True):
                buffer.data.copy_(content)
                table[name] = there
