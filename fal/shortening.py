"""What a traced program does for nothing: views of views, and products with 1, as `torch.func.vmap` leaves them."""

from collections.abc import Iterator

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten
VIEWS = {
    aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.transpose.int, aten.permute.default,
    aten.unsqueeze.default,
}  # fmt: skip
"""Operations whose results begin where the memory of their first argument does."""


def shorten(graph: Graph) -> None:
    """Nobody asks any more, afterwards, for what gives a tensor that is there already; numbers stay bit for bit.

    Args:
        graph: of `make_fx`, whose nodes know shapes and strides. One that writes to a tensor stays as it is, as it then
            matters which tensors share memory.
    """
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in graph.nodes):
        return
    (last,) = graph.find_nodes(op="output")
    given_back = {node for found in last.all_input_nodes for node in _seen(found)}
    for node in graph.find_nodes(op="call_function", target=aten.mul.Scalar):
        if node.args[1] == 1 and node not in given_back and _same_type(node):
            node.replace_all_uses_with(node.args[0])
    for node in graph.nodes:
        if node.target not in VIEWS:
            continue
        _, *others = _seen(node)
        if same := [other for other in others if _layout(other) == _layout(node)]:
            node.replace_all_uses_with(same[-1])
        elif (own := node.meta["val"]).is_contiguous():
            base = [other for other in others if _in_order(other) and other.meta["val"].numel() == own.numel()][-1:]
            if base and base[0] is not node.args[0]:
                node.target, node.args, node.kwargs = aten.view.default, (base[0], list(own.shape)), {}


def _seen(node: Node) -> Iterator[Node]:
    """The node, and what it is a view of, up to the one that made the memory."""
    yield node
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
        yield node


def _layout(node: Node) -> tuple[object, ...]:
    """What views of one memory that begin at its start are told apart by."""
    value = node.meta["val"]
    return tuple(value.shape), value.stride()


def _in_order(node: Node) -> bool:
    """Does it go through its memory from the first entry to the last?"""
    return bool(node.meta["val"].is_contiguous())


def _same_type(node: Node) -> bool:
    """Is its result of its argument's type?"""
    return bool(node.meta["val"].dtype == node.all_input_nodes[0].meta["val"].dtype)
