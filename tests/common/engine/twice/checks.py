"""What the tests of attention share: derivatives to compare, and the nodes of a graph."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.engine.twice import attention as implementation

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
BLOCKS = {  # queries per block, entries per block, kept keys per entry of a key
    "one, kept": (64, 2**18, 100),
    "one, rebuilt": (64, 2**18, 0),
    "many, kept": (2, 1, 100),
    "many, rebuilt": (2, 40, 0),
}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def derivatives(f: Callable[..., Tensor], tensors: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Output, its gradient from a random cotangent, and the gradient of that from random ones, to the cotangent too."""
    output = f(*tensors)
    torch.manual_seed(seed)
    cotangent = torch.randn(output.shape, dtype=output.dtype).requires_grad_()
    first = torch.autograd.grad(output, tensors, cotangent, create_graph=True)
    again = [torch.randn(g.shape, dtype=g.dtype) for g in first]
    return [output, *first, *torch.autograd.grad(first, [*tensors, cotangent], again, materialize_grads=True)]


def assert_close(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or TIGHT))


def set_blocks(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for name, number in zip(("BLOCK_QUERIES", "BLOCK_ENTRIES", "KEPT_KEYS"), BLOCKS[kind], strict=True):
        monkeypatch.setattr(implementation, name, number)


def graph(output: Tensor) -> set[str]:
    """Names of the backward nodes behind `output`."""
    nodes, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            todo.extend(before for before, _ in node.next_functions)
    return {type(node).__name__ for node in nodes}
