"""An inner loss whose one-step gradient and Hessian-vector product are compiled.

The loss is traced once for every shape of its data into plain torch operations, its derivatives are taken of that
graph, and `torch.compile` fuses each into one program: no autograd graph at run time, temporaries live as long as
they are read, and what nobody reads is never computed. The product is forward over reverse. Everything that the loss
reads besides weights and data (frozen weights, buffers, masks) is passed in anew at every call, never copied into the
program.

The first call for a shape takes from seconds to a minute. Programs are kept on disk (TORCHINDUCTOR_CACHE_DIR), so a
second run starts warm; tracing alone is repeated.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from common.engine.derivatives import InnerLoss, Product, plain_gradient, plain_product, unnamed_learner
from common.engine.twice.policy import Need, needing
from common.engine.weights import Weights
from common.errors import UserError

logger = logging.getLogger(__name__)
MOST_SHAPES = 12
"""Shapes of data that get a program of their own; further ones run uncompiled."""


@dataclass
class _Program:
    """What was compiled for one shape of data."""

    graph: fx.GraphModule
    """(weights, data, held) -> loss."""
    held: list[Tensor]
    """What else the loss reads."""
    gradient: Callable[..., list[Tensor]] | None = None
    product: Callable[..., list[Tensor]] | None = None


class Compiled:
    """An inner loss with compiled derivatives, for `adapt`; keep it over calls, as it owns the programs."""

    def __init__(self, loss: InnerLoss, module: nn.Module) -> None:
        """`module` is the network that `loss` calls: its training mode is part of what is compiled.

        Raises:
            UserError: there is no C++ compiler, which torch.compile needs for a CPU.
        """
        on_cpu = next(module.parameters()).device.type == "cpu"
        if on_cpu and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
            raise UserError(
                "inner.compile=true needs a C++ compiler, and none is on the PATH; install one (Debian and Ubuntu: apt "
                "install g++), or use inner.compile=false"
            )
        self.loss, self.module = loss, module
        self._programs: dict[Any, _Program] = {}
        self._warned = False

    def __call__(self, weights: Weights, part: Any) -> Tensor:
        """The loss itself, as it is."""
        return self.loss(weights, part)

    def gradient(self, weights: Weights, part: Any) -> tuple[list[Tensor], Tensor]:
        """See `common.engine.derivatives.Derivatives`."""
        program = self._program(weights, part)
        if program is None:
            return plain_gradient(self.loss, weights, part)
        values, data = list(weights.values()), _tensors(part)
        if program.gradient is None:
            program.gradient = _compile(_gradient_of(program.graph), values, data, program.held)
        with torch.no_grad():
            *found, value = program.gradient(values, data, program.held)
        return found, value

    def product(self, weights: Weights, part: Any, vector: Sequence[Tensor], also: Sequence[Tensor]) -> Product:
        """See `common.engine.derivatives.Derivatives`."""
        program = self._program(weights, part)
        if program is None:
            return plain_product(self.loss, weights, part, vector, also)
        values, data, vector = list(weights.values()), _tensors(part), list(vector)
        places = [_place(tensor, program.held) for tensor in also]
        if program.product is None:
            _refuse_unnamed_learners(program.held, also)
            reached = [place for place in places if place is not None]
            program.product = _compile(_product_of(program.graph, reached), values, data, program.held, vector)
        with torch.no_grad():
            found = program.product(values, data, program.held, vector)
        rest = iter(found[len(values) :])
        return found[: len(values)], [
            torch.zeros_like(x) if place is None else next(rest) for x, place in zip(also, places, strict=True)
        ]

    def _program(self, weights: Weights, part: Any) -> _Program | None:
        """Of these shapes, traced now if they are new; None if there are too many."""
        leaves, form = pytree.tree_flatten(part)
        shapes = [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in [*weights.values(), *leaves]]
        key = (tuple(weights), tuple(shapes), form, self.module.training)
        if key not in self._programs and len(self._programs) < MOST_SHAPES:
            self._programs[key] = _trace(self.loss, weights, leaves, form)
        if key not in self._programs and not self._warned:
            self._warned = True
            logger.warning(
                "inner.compile=true: more than %d shapes of data; further ones run uncompiled (pad to fewer)",
                MOST_SHAPES,
            )
        return self._programs.get(key)


def _tensors(part: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(part) if isinstance(leaf, Tensor)]


def _trace(loss: InnerLoss, weights: Weights, leaves: Sequence[Any], form: Any) -> _Program:
    """The loss as a graph of plain operations, with all that it reads among its inputs."""

    def summed(values: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor:
        rest = iter(data)
        filled = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        with needing(Need.plain):
            return loss(dict(zip(weights, values, strict=True)), pytree.tree_unflatten(filled, form))

    values = [w.detach() for w in weights.values()]
    data = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    # written out, as torch's forward mode of it fails where weight and bias are frozen
    norm: Any = get_decompositions([torch.ops.aten.native_layer_norm])
    with torch.no_grad():
        graph = make_fx(summed, norm, tracing_mode="fake", _allow_non_fake_inputs=True)(values, data)
    return _Program(*_lifted(graph))


def _lifted(graph: fx.GraphModule) -> tuple[fx.GraphModule, list[Tensor]]:
    """Make inputs of the tensors that the graph holds, and list them."""
    held: list[Tensor] = []
    places: dict[int, fx.Node] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        tensor: Any = graph
        for name in str(node.target).split("."):
            tensor = getattr(tensor, name)
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


def _gradient_of(graph: fx.GraphModule) -> Callable[..., list[Tensor]]:
    def run(values: list[Tensor], data: list[Tensor], held: list[Tensor]) -> list[Tensor]:
        def summed(*at: Tensor) -> tuple[Tensor, Tensor]:
            value = graph(*at, *data, *held)
            return value.sum(), value

        found, value = torch.func.grad(summed, argnums=tuple(range(len(values))), has_aux=True)(*values)
        return [*found, value]

    return run


def _product_of(graph: fx.GraphModule, also: Sequence[int]) -> Callable[..., list[Tensor]]:
    """Forward over reverse: the gradient by weights and by the held tensors `also`, moved along `vector`."""

    def run(values: list[Tensor], data: list[Tensor], held: list[Tensor], vector: list[Tensor]) -> list[Tensor]:
        others = [held[place] for place in also]

        def first(*at: Tensor) -> tuple[Tensor, ...]:
            def summed(*both: Tensor) -> Tensor:
                inputs = list(held)
                for place, tensor in zip(also, both[len(at) :], strict=True):
                    inputs[place] = tensor
                total: Tensor = graph(*both[: len(at)], *data, *inputs).sum()
                return total

            found: tuple[Tensor, ...] = torch.func.grad(summed, argnums=tuple(range(len(at) + len(also))))(*at, *others)
            return found

        return list(torch.func.jvp(first, tuple(values), tuple(vector))[1])

    return run


def _compile(function: Callable[..., list[Tensor]], *inputs: list[Tensor]) -> Callable[..., list[Tensor]]:
    """A program for inputs of these shapes."""
    from torch._inductor.decomposition import select_decomp_table

    began = time.monotonic()
    detached = [[x.detach() for x in group] for group in inputs]
    with torch.no_grad():
        graph = make_fx(function, decomposition_table=select_decomp_table(), tracing_mode="fake")(*detached)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        # the same random numbers as without compilation, so that a step can be replayed by either
        program: Callable[..., list[Tensor]] = torch.compile(
            graph, fullgraph=True, dynamic=False, options={"fallback_random": True}
        )
        state = torch.get_rng_state()
        program(*detached)
        torch.set_rng_state(state)
    logger.info("compiled %d operations in %.0f s", len(graph.graph.nodes), time.monotonic() - began)
    return program


def _place(tensor: Tensor, held: Sequence[Tensor]) -> int | None:
    return next((index for index, other in enumerate(held) if other is tensor), None)


def _refuse_unnamed_learners(held: Sequence[Tensor], also: Sequence[Tensor]) -> None:
    for tensor in held:
        if tensor.requires_grad and all(tensor is not other for other in also):
            raise unnamed_learner(tensor)
