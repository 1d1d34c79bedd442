"""An inner loss as a graph of plain torch operations, with every tensor that it reads among the inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from common.engine.derivatives import InnerLoss
from common.engine.reached import Reached
from common.engine.second import differentiable_twice
from common.engine.twice.policy import Need, needing
from common.engine.unroll.guard import coarser
from common.engine.unroll.scenes import Scenes, generator_states, moved
from common.engine.value import in_words, refuse_unfit, unreached
from common.engine.weights import Weights
from common.errors import UserError

_READS = ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__")
_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm")
_ELSE = "or use inner.compile=false"


@dataclass(frozen=True)
class Traced:
    """The loss as it was for one shape of data and one state of what it reads."""

    graph: fx.GraphModule
    """(weights, data, held) -> loss."""
    held: list[Tensor]
    """What else the loss read."""
    places: list[int | None]
    """Where these stand among the tensors that were reached; None: nowhere, such as one made of numbers."""
    doubts: list[str]
    """What may change unseen."""
    rough: torch.dtype
    """The coarsest precision in it."""

    @property
    def doubtful(self) -> bool:
        """Whether the graph has to be compared with the loss now and then."""
        return bool(self.doubts)

    def bound(self, found: Reached) -> list[Tensor]:
        """What the loss reads now, of a state with the same values."""
        return [x if i is None else found.tensors[i] for x, i in zip(self.held, self.places, strict=True)]


def trace(loss: InnerLoss, weights: Weights, part: Any, found: Reached) -> Traced:
    """Run `loss` once on tensors without data; nothing that it writes to stays written.

    Raises:
        UserError: the loss does what a graph cannot stand for.
    """
    leaves, form = pytree.tree_flatten(part)

    def summed(values: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor:
        rest = iter(data)
        filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        at = dict(zip(weights, values, strict=True))
        with needing(Need.plain), differentiable_twice(), in_words():
            value = loss(at, pytree.tree_unflatten(filled, form))
        refuse_unfit(value, at)
        return value

    values = [w.detach() for w in weights.values()]
    data = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    # written out, as torch's forward mode of it fails where weight and bias are frozen
    norm: Any = get_decompositions([torch.ops.aten.native_layer_norm])
    with torch.no_grad(), _put_back(loss, found, values[0].device), _Reads() as reads:
        try:
            graph = make_fx(summed, norm, tracing_mode="fake", _allow_non_fake_inputs=True)(values, data)
        except (RuntimeError, NotImplementedError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"inner.compile=true: the inner loss cannot be traced, as one that chooses by the values of tensors "
                f"cannot ({line}); let it use torch.where and the like, {_ELSE}"
            ) from error
    if not _reaches(graph, len(values)):
        raise unreached(weights)
    _refuse_writes(graph)
    doubts = [*found.unknown, *(["the value of a tensor"] if reads.count else [])]
    graph, held = _lifted(graph)
    first = {id(tensor): place for place, tensor in reversed(list(enumerate(found.tensors)))}
    kinds = [values[0].dtype, *(node.kwargs["dtype"] for node in graph.graph.nodes if node.kwargs.get("dtype"))]
    rough = reduce(coarser, [kind for kind in kinds if kind.is_floating_point])
    return Traced(graph, held, [first.get(id(tensor)) for tensor in held], doubts, rough)


def _reaches(graph: fx.GraphModule, weights: int) -> bool:
    """Whether the result depends on one of the first inputs, other than by what was detached."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"][:weights]
    waiting, seen = [graph.graph.output_node()], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in inputs:
            return True
        if node not in seen and node.target is not torch.ops.aten.detach.default:
            seen.add(node)
            waiting.extend(node.all_input_nodes)
    return False


@contextmanager
def _put_back(loss: InnerLoss, found: Reached, device: torch.device) -> Iterator[None]:
    """Networks and generators stand afterwards as before; one that is drawn from other than torch's is refused."""
    scenes, states = Scenes(device, loss), generator_states(found)
    scenes.begin()
    with scenes.again(0), scenes.recording():
        before = [read() for read, _ in states]
        yield
        drawn = any(moved(before, [read() for read, _ in states]))
    if drawn:
        raise _draws()


def _draws() -> UserError:
    return UserError(
        "inner.compile=true: the inner loss draws random numbers from another generator than torch's default ones, and "
        f"a program would repeat them; use torch's, give the numbers as data, {_ELSE}"
    )


class _Reads(TorchFunctionMode):
    """Counts how often Python asks a tensor for its value."""

    count = 0

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in _READS:
            self.count += 1
        return function(*args, **(kwargs or {}))


def _refuse_writes(graph: fx.GraphModule) -> None:
    """A program would write to the tensors that it is given, or not at all, and twice when a step is rebuilt."""
    for node in graph.graph.nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        schema, written = node.target._schema, []
        for given, declared in zip(node.args, schema.arguments, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                written.append(given)
        if schema.name.removeprefix("aten::") in _BATCH_NORMS and node.args[5] and node.args[3] is not None:
            written.append(node.args[3])
        for given in written:
            if isinstance(source := _source(given), fx.Node) and source.op in ("get_attr", "placeholder"):
                raise UserError(
                    "inner.compile=true: the inner loss writes to a tensor that was there before it, as batch norm in "
                    "training mode writes to its running statistics; use network.eval(), layers without running "
                    f"statistics (track_running_stats=False), {_ELSE}"
                )


def _source(node: Any) -> Any:
    """What a view is of."""
    while isinstance(node, fx.Node) and node.op == "call_function" and hasattr(node.target, "_schema"):
        returns = node.target._schema.returns
        if not returns or returns[0].alias_info is None or not node.args:
            break
        node = node.args[0]
    return node


def _lifted(graph: fx.GraphModule) -> tuple[fx.GraphModule, list[Tensor]]:
    """Make inputs of the tensors that the graph holds, and list them."""
    held: list[Tensor] = []
    places: dict[int, fx.Node] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        tensor: Any = graph
        for name in str(node.target).split("."):
            tensor = getattr(tensor, name)
        if not isinstance(tensor, Tensor):
            raise _draws()
        if id(tensor) not in places:
            with graph.graph.inserting_after(last):
                last = places[id(tensor)] = graph.graph.placeholder(f"held_{len(held)}")
            held.append(tensor)
        node.replace_all_uses_with(places[id(tensor)])
        graph.graph.erase_node(node)
    graph.graph.set_codegen(fx.graph.CodeGen())  # flat inputs: weights, data, held; one output
    output = graph.graph.output_node()
    output.args = tuple(pytree.tree_leaves(output.args))
    graph.recompile()
    return graph, held
