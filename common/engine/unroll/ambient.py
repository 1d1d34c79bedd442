"""Switches of the process and the thread that decide what a forward pass computes, kept to compute the same again."""

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_PRECISIONS = [(backend, of) for backend in ("cuda", "mkldnn") for of in ("matmul", "conv", "rnn", "all")]


def _precision(backend: str, of: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return (
        lambda: torch._C._get_fp32_precision_getter(backend, of),
        lambda value: torch._C._set_fp32_precision_setter(backend, of, value),
    )


def _matmul() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set backend by backend, which has no name as a whole
        return None


def _set_matmul(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


_SWITCHES: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    (torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled),
    (torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark),
    (torch._C._get_cudnn_deterministic, torch._C._set_cudnn_deterministic),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),  # which attention runs: common.engine.second
    (_matmul, _set_matmul),
    *(_precision(backend, of) for backend, of in _PRECISIONS),
]


class Ambient:
    """The switches as they stood when this was made: autocast, default dtype and device, kernels, context variables."""

    def __init__(self, device: torch.device) -> None:
        self._context = contextvars.copy_context()
        self._autocast = {kind: _autocast(kind) for kind in dict.fromkeys(("cpu", device.type))}
        self._switches = [get() for get, _ in _SWITCHES]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the switches are, hashable; context variables are left out."""
        return (*self._autocast.items(), *self._switches)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` as if nothing had been switched since; the switches of now stand again afterwards."""
        return self._context.run(self._run, function, args)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with self._standing():
            return function(*args)

    @contextmanager
    def _standing(self) -> Iterator[None]:
        with ExitStack() as stack:
            for (get, put), value in zip(_SWITCHES, self._switches, strict=True):
                if (now := get()) != value:
                    put(value)
                    stack.callback(put, now)
            for kind, (enabled, dtype) in self._autocast.items():
                if (enabled, dtype) != _autocast(kind):  # a cached cast would belong to the graph of another part
                    stack.enter_context(torch.autocast(kind, dtype, enabled, cache_enabled=False))
            yield


def _autocast(kind: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
