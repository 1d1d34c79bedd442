"""Forward passes of which a second derivative is taken: without kernels that have only a first one.

What is switched here are settings of the process: other threads get them too while they are on, and right results.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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

    def __init__(self, switched: Callable[[], AbstractContextManager[object]]) -> None:
        self._switched, self._lock, self._users, self._on = switched, threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._on.enter_context(self._switched())
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._on.close()


@contextmanager
def _plain_attention() -> Iterator[None]:
    before = [asked() for asked, _, _ in _ATTENTION]
    for _, switch, on in _ATTENTION:
        switch(on)
    try:
        yield
    finally:
        for (_, switch, _), was in zip(_ATTENTION, before, strict=True):
            switch(was)


def _eager() -> AbstractContextManager[object]:
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes a second
        return nullcontext()
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


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
