"""Forward passes of which a second derivative is taken: without kernels that have only a first one.

What is switched here are settings of the process: other threads get them too while they are on, and right results.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch.backends import cuda

_twice: ContextVar[bool] = ContextVar("twice", default=False)
_ATTENTION: list[tuple[Callable[[], bool], Callable[[bool], None], bool]] = [
    (cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp, False),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, False),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, False),
]
"""How each kernel of torch's attention is asked for and switched, and whether it has a second derivative."""


class _Setting:
    """On from the first of its users to the last, whichever threads they are in."""

    def __init__(self, switch_on: Callable[[], Callable[[], object]]) -> None:
        """`switch_on` returns what switches back."""
        self._switch_on, self._lock, self._users = switch_on, threading.Lock(), 0
        self._switch_back: Callable[[], object] = int

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._switch_back = self._switch_on()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._switch_back()


def _plain_attention() -> Callable[[], object]:
    changed = []
    for asked, switch, on in _ATTENTION:
        if asked() is not on:
            switch(on)
            changed.append((switch, not on))
    return lambda: [switch(was) for switch, was in changed]


def _eager() -> Callable[[], object]:
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        return int
    on = ExitStack()
    on.enter_context(torch.compiler.set_stance("force_eager"))
    return on.close


attention_of_plain_operations = _Setting(_plain_attention)
uncompiled = _Setting(_eager)
"""What `torch.compile` made runs as it was written."""


def twice() -> bool:
    """Whether the caller is inside `differentiable_twice`."""
    return _twice.get()


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """`uncompiled`, as compiled gradients are constants to autograd: some say so in an error, some give a wrong second
    derivative. Torch's own attention takes its kernel of plain operations.
    """
    with attention_of_plain_operations, uncompiled:
        token = _twice.set(True)
        try:
            yield
        finally:
            _twice.reset(token)
