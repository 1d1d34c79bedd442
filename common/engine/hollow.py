"""Operations on tensors that have shapes but no memory."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from common.engine.met import telling
from common.engine.second import uncompiled
from common.engine.value import in_words
from common.errors import UserError

DEVICE = torch.ops.prim.device.default
"""Asked of tensors more often than all operations together."""


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, outside of any compilation."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The guard against compilation would cost more than what is done for an operation; nothing is compiled."""
        return False


def _real(given: Iterable[Any]) -> bool:
    """Whether a tensor with data is among them; their lists are mostly of numbers, which need no look into a tree."""
    for x in given:
        if isinstance(x, FakeTensor):
            continue
        if isinstance(x, Tensor) or (isinstance(x, list | tuple) and _real(x)):
            return True
    return False


class Hollow(Mode):  # type: ignore[no-untyped-call]
    """Whatever tensor an operation reads enters `mode` without its data.

    On its own that mode computes for real with integers of no dimension, and would write to batch norm's count.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode = mode

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        kwargs = kwargs or {}
        if _real(args) or _real(kwargs.values()):
            args, kwargs = pytree.tree_map_only(Tensor, self._enter, (args, kwargs))
        return function(*args, **kwargs)

    def _enter(self, x: Tensor) -> Tensor:
        return x if isinstance(x, FakeTensor) else self._mode.from_tensor(x)


@contextmanager
def without_data(mode: FakeTensorMode) -> Iterator[None]:
    """Inside the block, and that of a `Hollow` in it, operations run on shapes alone, and leave nothing behind in a
    network that they run through.

    Raises:
        UserError: values are needed.
    """
    before: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}

    def met(module: nn.Module, _: Mapping[str, Tensor]) -> None:
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            for holder in (vars(part), part._buffers):
                before.setdefault(id(holder), (holder, dict(holder)))

    try:
        with telling(met), uncompiled, in_words(), mode:
            yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UserError(
            "sizes are counted without data, and the network needs some: it reads a value (.item()), or chooses a "
            "shape by values; choose inner.unroll and inner.stack by hand, other than auto"
        ) from error
    finally:
        for holder, own in before.values():
            for key in holder.keys() - own.keys():
                del holder[key]
            holder.update(own)
